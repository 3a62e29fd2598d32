"""The inventory: every image of a run, written down once, cut into parts of equal size.

    inputs.jsonl    a record per image, or per piece of a Parquet file, as [number of the input, ...]
    parts.bin       where each part begins in it, 8 bytes each

A part is the unit of work, of resumption and, with Ray, of distribution; any of them can be read without the others.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from service.batch.cells import CellReader
from service.batch.entries import UNREADABLE, Entry, Slice
from service.batch.inputs import Input
from service.batch.listing import Record, list_images
from service.errors import BatchError

_RECORDS, _PARTS = "inputs.jsonl", "parts.bin"
_TELL_EVERY = 4096  # images


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """What there is to classify.

    Attributes:
        folder: that holds it.
        inputs: what the records refer to.
        column: of the images in Parquet files; None: the usual one.
        images: in all.
        part_images: images of a part; the last one has what is left.
        digest: SHA-256 of inputs and records, hexadecimal: the same only for the same images in the same order.
    """

    folder: Path
    inputs: Sequence[Input]
    column: str | None
    images: int
    part_images: int
    digest: str

    @property
    def parts(self) -> int:
        """How many."""
        return -(-self.images // self.part_images)

    def size(self, part: int) -> int:
        """Images of one part."""
        return min(self.part_images, self.images - part * self.part_images)

    def entries(self, parts: Iterable[int]) -> Iterator[Entry]:
        """The images of these parts, in order; what lies in Parquet files is read on the way."""
        cells = CellReader(self.column)
        for number, *record in self._records(parts):
            yield from self._open(self.inputs[number], record, cells)

    def _records(self, parts: Iterable[int]) -> Iterator[Record]:
        offsets = array("Q", (self.folder / _PARTS).read_bytes())
        with (self.folder / _RECORDS).open("rb") as file:
            for part in parts:
                file.seek(offsets[part])
                left = self.size(part)
                while left > 0:
                    record = json.loads(file.readline())
                    left -= _weight(self.inputs, record)
                    yield record

    def _open(self, source: Input, record: Record, cells: CellReader) -> Iterator[Entry]:
        if source.kind == "parquet":
            for row, cell in enumerate(cells.read(source.path, *record), record[0]):
                yield Entry(f"{source.name}:{row}", UNREADABLE if cell is None else cell)
        elif source.kind == "tar":
            name, offset, size = record
            key = f"{source.name}:{name}" if name else source.name
            yield Entry(key, UNREADABLE if size is None else Slice(source.path, offset, size))
        else:
            [name] = record
            key = name if source.kind == "list" else f"{source.name.rstrip('/')}/{name}"
            yield Entry(key, Slice(source.base / name))


def write_inventory(
    inputs: Sequence[Input], folder: Path, column: str | None, part_images: int, tell: Callable[[int], None]
) -> Inventory:
    """List all inputs.

    Args:
        inputs: in order.
        folder: to write into.
        column: see `Inventory`.
        part_images: see `Inventory`.
        tell: called now and then with the number of images found so far.

    Raises:
        BatchError: if an input cannot be read, or there is no image in any.
    """
    digest = hashlib.sha256(json.dumps([source.state() for source in inputs]).encode())
    images, offsets = 0, array("Q")
    with (folder / _RECORDS).open("wb") as file:
        for record in _cut(_numbered(inputs, folder, column), inputs, part_images):
            if images % part_images == 0:
                offsets.append(file.tell())
            _write(file, digest, record)
            images += _weight(inputs, record)
            if images % _TELL_EVERY == 0:
                tell(images)
    (folder / _PARTS).write_bytes(offsets.tobytes())
    if not images:
        raise BatchError(f"there is no image in {', '.join(source.name for source in inputs)}")
    return Inventory(folder, inputs, column, images, part_images, digest.hexdigest())


def _numbered(inputs: Sequence[Input], scratch: Path, column: str | None) -> Iterator[Record]:
    for number, source in enumerate(inputs):
        yield from ([number, *record] for record in list_images(source, scratch, column))


def _write(file: BinaryIO, digest: Any, record: Record) -> None:
    line = json.dumps(record).encode() + b"\n"
    digest.update(line)
    file.write(line)


def _weight(inputs: Sequence[Input], record: Record) -> int:
    """Images of a record."""
    return int(record[2] - record[1]) if inputs[record[0]].kind == "parquet" else 1


def _cut(records: Iterable[Record], inputs: Sequence[Input], part_images: int) -> Iterator[Record]:
    """The same images in records that do not reach from one part into the next."""
    left = part_images
    for record in records:
        rest = record
        while (weight := _weight(inputs, rest)) > left:
            number, start, stop = rest
            yield [number, start, start + left]
            rest, left = [number, start + left, stop], part_images
        if weight:
            yield rest
            left = left - weight or part_images
