"""Lists every image of an input, in a fixed order and in little memory: one JSON-able record for each.

    folder, list    [name]                       relative to the folder, or as it stands in the list
    tar             [member, offset, size]       where its bytes are; [member, null, null] where the tar is cut off
    parquet         [first row, row behind the last]

A tar is read header by header; the images themselves are not touched.
"""

import heapq
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from service.batch.cells import count_rows
from service.batch.entries import is_image_name
from service.batch.inputs import Input
from service.errors import BatchError

Record = list[Any]
_RUN = 200_000  # names that are sorted in memory; more are merged from files


def list_images(source: Input, scratch: Path, column: str | None) -> Iterator[Record]:
    """The records of one input.

    Args:
        source: where.
        scratch: folder for what does not fit into memory.
        column: of the bytes in Parquet files.

    Raises:
        BatchError: if the input itself cannot be read.
    """
    try:
        if source.kind == "parquet":
            yield [0, count_rows(source, column)]
        elif source.kind == "folder":
            yield from ([name] for name in _sorted(_walk(source.path), scratch))
        else:
            yield from _BY_KIND[source.kind](source)
    except OSError as error:
        raise BatchError(f"{error.filename or source.name} cannot be read: {error.strerror or error}") from None


def _lines(source: Input) -> Iterator[Record]:
    with source.path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for line in file:
            if name := line.rstrip("\r\n"):
                yield [name]


def _members(source: Input) -> Iterator[Record]:
    try:
        with source.path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or each header would stay in memory
                if member.isreg() and not member.issparse() and is_image_name(member.name):
                    yield [member.name, member.offset_data, member.size]
            file.seek(tar.offset)
            if any(file.read(tarfile.BLOCKSIZE)):  # `next` takes a broken header for the end, too
                yield ["", None, None]
    except tarfile.ReadError:
        yield ["", None, None]


_BY_KIND: dict[str, Callable[[Input], Iterator[Record]]] = {"list": _lines, "tar": _members}


def _walk(root: Path) -> Iterator[str]:
    """Names of image files below a folder, relative to it; links to folders are not followed, they may be circles."""
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as found:
            for each in found:
                name = f"{folder}/{each.name}" if folder else each.name
                if each.is_dir(follow_symlinks=False):
                    folders += [] if each.name.startswith(".") else [name]
                elif is_image_name(each.name) and each.is_file():
                    yield name


def _sorted(names: Iterator[str], scratch: Path) -> Iterator[str]:
    """In order, with at most `_RUN` of them in memory."""
    runs: list[Path] = []
    while run := sorted(islice(names, _RUN)):
        if len(run) < _RUN and not runs:
            yield from run
            return
        runs.append(scratch / f"names-{len(runs)}")
        with runs[-1].open("w") as file:
            file.writelines(f"{json.dumps(name)}\n" for name in run)
    yield from heapq.merge(*map(_names_in, runs))
    for path in runs:
        path.unlink()


def _names_in(path: Path) -> Iterator[str]:
    with path.open() as file:
        for line in file:
            yield json.loads(line)
