"""Images in a column of a Parquet file: plain bytes, or the struct of bytes and path that Hugging Face writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.batch.inputs import Input
from service.errors import BatchError

_USUAL_NAMES = ("image", "img", "bytes", "image_bytes", "jpg", "png")
_CELLS_AT_ONCE = 32  # images held undecoded


def count_rows(source: Input, column: str | None) -> int:
    """Rows of a file that has a column of images.

    Raises:
        BatchError: if it is cut off, no Parquet file, or has no such column.
    """
    try:
        with pq.ParquetFile(source.path) as file:
            find_column(file.schema_arrow, column, source.name)
            return int(file.metadata.num_rows)
    except pa.ArrowException as error:
        raise BatchError(
            f"{source.name} is cut off or no Parquet file ({_first_line(error)}): send it again, or leave it out"
        ) from None


def find_column(schema: pa.Schema, column: str | None, name: str) -> str:
    """The column of the images: the one that is named, or the usual one, or the only one.

    Raises:
        BatchError: if there is none, or no way to choose.
    """
    suitable = [field.name for field in schema if _is_image(field.type)]
    if column is not None and column in suitable:
        return column
    usual = [each for each in _USUAL_NAMES if each in suitable]
    if column is None and (usual or len(suitable) == 1):
        return (usual or suitable)[0]
    wanted = "no usual column of images" if column is None else f"no column {column} of images"
    raise BatchError(
        f"{name} has {wanted}: name one with --column, of bytes or of a struct with bytes; "
        f"suitable here: {', '.join(suitable) or 'none'}"
    )


class CellReader:
    """Reads images by row; rows that follow those of the call before are not searched for again.

    Args:
        column: of the images; None: the usual one.
    """

    def __init__(self, column: str | None) -> None:
        self._column = column
        self._next: tuple[Path, int] | None = None
        self._cells: Iterator[bytes | None] = iter(())

    def read(self, path: Path, start: int, stop: int) -> Iterator[bytes | None]:
        """The images of rows `start` to `stop`; None for each that is missing or that cannot be read."""
        if self._next != (path, start):
            self._cells = _cells_from(path, self._column, start)
        for row in range(start, stop):
            self._next = path, row + 1
            yield next(self._cells, None)


def _cells_from(path: Path, column: str | None, start: int) -> Iterator[bytes | None]:
    """The images of a file from a row on; ends early if it cannot be opened any more."""
    try:
        file = pq.ParquetFile(path)
        name = find_column(file.schema_arrow, column, str(path))
    except (pa.ArrowException, OSError, BatchError):
        return
    first = 0
    with file:
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first + rows > start:
                yield from _cells_of(file, group, name, max(0, start - first))
            first += rows


def _cells_of(file: pq.ParquetFile, group: int, name: str, skip: int) -> Iterator[bytes | None]:
    """The images of a row group, without the first `skip`; None for those behind a broken page."""
    is_struct = pa.types.is_struct(file.schema_arrow.field(name).type)
    left = file.metadata.row_group(group).num_rows - skip
    columns = [f"{name}.bytes"] if is_struct else [name]
    try:
        for batch in file.iter_batches(_CELLS_AT_ONCE, [group], columns, use_threads=False):
            cells: Any = batch.column(0).field("bytes") if is_struct else batch.column(0)
            for cell in cells[skip:]:
                yield cell.as_py()
                left -= 1
            skip = max(0, skip - len(batch))
    except (pa.ArrowException, OSError):
        yield from [None] * left


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_image(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
