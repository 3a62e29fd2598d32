"""Labelled images for training and evaluation, in memory as uint8 RGB.

Axes: `M` images of the data set, `S` working side in pixels, `C` = 3 channels.
"""

import gzip
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.headers import ImageError, ImageLimits, read_header
from model.preprocess import decode

FASHION_MNIST_PATH = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
FASHION_MNIST_LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class DataError(ValueError):
    """A data set that cannot be used; the message says what was looked for and where."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Images of one size, and what they show.

    Attributes:
        images: uint8 `[M, C, S, S]`, RGB; `C` is 1 for a grey data set that is kept small.
        targets: int64 `[M]`, index into `labels`.
        labels: names of the classes.
        skipped: files that could not be read, with the reason.
    """

    images: Tensor
    targets: Tensor
    labels: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)


def load_fashion_mnist(split: str, root: Path = FASHION_MNIST_PATH) -> LabelledImages:
    """Fashion-MNIST (Xiao et al. 2017): 28x28 grey, 60,000 images for `train` and 10,000 for `test`.

    Raises:
        DataError: when the files are not there, with how to get them.
    """
    stem = {"train": "train", "test": "t10k"}[split]
    try:
        pixels = _read_idx(root / f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
        targets = _read_idx(root / f"{stem}-labels-idx1-ubyte.gz", 8)
    except FileNotFoundError as error:
        raise DataError(
            f"Fashion-MNIST is not at {root} ({error.filename} is missing): apt-get install dataset-fashion-mnist, "
            "or put the four .gz files of the data set into a folder and name it"
        ) from None
    return LabelledImages(torch.from_numpy(pixels), torch.from_numpy(targets.astype(np.int64)), FASHION_MNIST_LABELS)


def _read_idx(path: Path, header_bytes: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header_bytes).copy()


def class_files(root: Path, labels: tuple[str, ...] | None = None) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """The labels of a folder of one folder a class, and its image files with the index of their label.

    Args:
        root: folder of one folder a class.
        labels: classes in logit order; default the folder names, sorted.

    Raises:
        DataError: when there is no class folder, or one that is not in `labels`.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not folders:
        raise DataError(f"{root}: expected a folder with one sub-folder of images for each class")
    names = labels or tuple(folder.name for folder in folders)
    if unknown := [folder.name for folder in folders if folder.name not in names]:
        raise DataError(
            f"{root}: expected one sub-folder of images for each class, but "
            f"classes {unknown} are not among the {len(names)} labels"
        )
    return names, [
        (path, names.index(folder.name))
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]


def load_class_folders(root: Path, side: int, labels: tuple[str, ...] | None = None) -> LabelledImages:
    """Read `root/CLASS/IMAGE`; each image is squashed to the working size, unreadable ones are listed in `skipped`.

    Args:
        root: folder of one folder a class.
        side: S, pixels.
        labels: classes in logit order; default the folder names, sorted.

    Raises:
        DataError: when there is no class folder, no readable image, or a folder that is not in `labels`.
    """
    names, files = class_files(root, labels)
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda item: _read_image(item[0], side), files))
    read = [(pixels, target) for pixels, (_, target) in zip(results, files, strict=True) if not isinstance(pixels, str)]
    skipped = tuple(reason for reason in results if isinstance(reason, str))
    if not read:
        raise DataError(f"{root}: no readable image ({len(skipped)} could not be read): {'; '.join(skipped[:3])}")
    images = torch.from_numpy(np.stack([pixels for pixels, _ in read])).permute(0, 3, 1, 2)
    return LabelledImages(images.contiguous(), torch.tensor([target for _, target in read]), names, skipped)


def _read_image(path: Path, side: int) -> NDArray[np.uint8] | str:
    """RGB `[S, S, 3]`, or why the file could not be read."""
    try:
        data = path.read_bytes()
        image = decode(data, read_header(data, ImageLimits()), at_least=(side, side), background=(0, 0, 0))
        return np.asarray(image.resize((side, side)))
    except (ImageError, OSError) as error:
        return f"{path}: {error}"
