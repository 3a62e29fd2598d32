"""Images without labels, for self-supervision and figures: every image file below a folder.

Axes: `M` images, `S` working side in pixels.
"""

from pathlib import Path

from torch import Tensor

from model.data import IMAGE_SUFFIXES, DataError, Entry, load_entries


def image_files(root: Path) -> list[Path]:
    """All image files below a folder, sorted.

    Raises:
        DataError: when there is none.
    """
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"{root}: expected a folder with images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def load_images(root: Path, side: int) -> tuple[Tensor, tuple[str, ...]]:
    """Read every image below a folder, each squashed to the working size.

    Args:
        root: the folder; folders inside it mean nothing.
        side: S, pixels.

    Returns:
        uint8 `[M, 3, S, S]`, and the files that could not be read, with the reason.

    Raises:
        DataError: when there is no readable image.
    """
    read = load_entries([Entry(str(path), 0, path) for path in image_files(root)], ("image",), side)
    return read.images, read.skipped
