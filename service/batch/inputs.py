"""What the arguments of `patchserve batch` name: folders, lists of paths, tars and Parquet files."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Literal

from service.errors import BatchError

Kind = Literal["folder", "list", "tar", "parquet"]
_KINDS: dict[str, Kind] = {".txt": "list", ".lst": "list", ".tar": "tar", ".parquet": "parquet"}
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, slots=True)
class Input:
    """One folder or file.

    Attributes:
        kind: how it is read.
        name: as it was given; keys begin with it.
        path: absolute.
        base: what the names of its images are relative to; of a list the current folder, as everywhere in a shell.
    """

    kind: Kind
    name: str
    path: Path
    base: Path

    def state(self) -> list[str]:
        """What tells this input from another, or from itself after a change; of folders and lists, the names do."""
        if self.kind == "folder":
            return [self.kind, self.name]
        if self.kind == "list":
            return [self.kind, self.name, str(self.base)]
        facts = self.path.stat()
        return [self.kind, self.name, str(facts.st_size), str(facts.st_mtime_ns)]


def find_inputs(arguments: Sequence[str]) -> list[Input]:
    """The inputs in the order of the arguments; braces and wildcards that the shell has left are resolved, sorted.

    Raises:
        BatchError: if there is nothing of that name, or it is of no known kind.
    """
    names = [name for argument in arguments for name in _resolve(argument)]
    return [_input(name) for name in names]


def _resolve(argument: str) -> list[str]:
    if Path(argument).exists():
        return [argument]
    found = [name for pattern in _expand(argument) for name in _matching(pattern)]
    if not found:
        raise BatchError(f"there is no {argument}: name folders, .txt lists, .parquet or .tar files")
    return found


def _matching(pattern: str) -> list[str]:
    # Path.glob takes no absolute pattern.
    return sorted(glob(pattern)) if re.search(r"[*?\[]", pattern) else [pattern]  # noqa: PTH207


def _expand(pattern: str) -> Iterator[str]:
    """`a-{00..02}.tar` and `{train,test}.tar`, the first pair of braces first."""
    head, opening, rest = pattern.partition("{")
    inside, closing, tail = rest.partition("}")
    if not (opening and closing):
        yield pattern
        return
    for choice in _choices(inside):
        yield from _expand(head + choice + tail)


def _choices(inside: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + 1)]


def _input(name: str) -> Input:
    path = Path(name).absolute()
    if path.is_dir():
        return Input("folder", name, path, path)
    if not path.exists():
        raise BatchError(f"there is no {name}: name folders, .txt lists, .parquet or .tar files")
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise BatchError(
            f"{name} is none of a folder, a .txt list of paths, a .parquet or an uncompressed .tar file; "
            "for single images there is patchserve classify"
        )
    return Input(kind, name, path, Path.cwd())
