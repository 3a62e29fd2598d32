"""What DATA names on the command lines: class folders, a CSV list, a Parquet file, CIFAR binaries, Fashion-MNIST."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from model.cifar import is_cifar, load_cifar
from model.data import DataError, Entry, LabelledImages, class_files, load_entries, load_fashion_mnist
from model.tables import Labels, csv_entries, parquet_entries

FORMS = "a folder of class folders, a .csv list (path,label), a .parquet file, or a folder of CIFAR or IDX files"


def load_data(
    place: Path | None, split: str, side: int, labels: Labels | None = None, *, crop: bool = False
) -> LabelledImages:
    """Read a data set into memory.

    Args:
        place: where it is; None for Fashion-MNIST where Debian puts it.
        split: `train` or `test`, of sets that have both parts in one place.
        side: S, pixels, of images that are decoded; the others keep their own.
        labels: classes in logit order; default the data's own.
        crop: as in `load_entries`.

    Raises:
        DataError: if it cannot be used, in one line.
    """
    whole = _whole(place, split)
    if place is None or whole is not None:
        return _checked(whole or load_fashion_mnist(split), labels, place)
    names, entries = find_entries(place, labels)
    try:
        return load_entries(entries, names, side, crop=crop)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def find_entries(place: Path, labels: Labels | None = None) -> tuple[Labels, list[Entry]]:
    """The labels and the encoded images of a data set that consists of such.

    Raises:
        DataError: if there is none, or a label is not in `labels`.
    """
    if place.suffix.lower() == ".csv":
        return csv_entries(place, labels)
    if place.suffix.lower() == ".parquet":
        return parquet_entries(place, labels)
    if not place.is_dir():
        raise DataError(f"{place}: no such data set; it must be {FORMS}")
    names, files = class_files(place, labels)
    return names, [Entry(str(path), target, path) for path, target in files]


def encoded(place: Path | None, labels: Labels | None = None, split: str = "test") -> tuple[Labels, list[Entry]]:
    """The images as files, for evaluation along the served path; arrays become PNG.

    Raises:
        DataError: if it cannot be used.
    """
    whole = _whole(place, split)
    if place is not None and whole is None:
        return find_entries(place, labels)
    whole = _checked(whole or load_fashion_mnist(split), labels, place)
    return whole.labels, [
        Entry(f"image {row}", int(target), png_of(pixels.permute(1, 2, 0).numpy()))
        for row, (pixels, target) in enumerate(zip(whole.images, whole.targets, strict=True))
    ]


def png_of(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 pixels `[h, w, 1]` or `[h, w, 3]`."""
    buffer = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _whole(place: Path | None, split: str) -> LabelledImages | None:
    """A set of arrays of one size, if that is what is there."""
    if place is not None and is_cifar(place):
        return load_cifar(split, place)
    if place is not None and (place / "t10k-images-idx3-ubyte.gz").is_file():
        return load_fashion_mnist(split, place)
    return None


def _checked(data: LabelledImages, labels: Labels | None, place: Path | None) -> LabelledImages:
    if labels is not None and labels != data.labels:
        raise DataError(f"{place or 'Fashion-MNIST'}: its {len(data.labels)} labels are not those of the model")
    return data
