"""From what stands on the command line to image files."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.errors import StartError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


def expand(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the images in them and below, in order of their names.

    A file that is named is taken whatever its ending; in a folder only image files are, and no hidden ones.

    Raises:
        StartError: if a folder holds no image or cannot be read.
    """
    return [file for path in paths for file in (_images_of(path) if path.is_dir() else [path])]


def _images_of(folder: Path) -> list[Path]:
    files = sorted(_walk(folder))
    if not files:
        raise StartError(f"{folder} holds no image: files that end in {', '.join(SUFFIXES)} are looked for")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Links to folders are not followed: they may lead round in a circle."""
    for base, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(base, name) for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise StartError(f"the folder {error.filename} cannot be read: {error.strerror}")
