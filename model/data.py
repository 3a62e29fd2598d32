"""Labelled images for training and evaluation, in memory as uint8 RGB.

Axes: `M` images of the data set, `S` working side in pixels, `C` = 3 channels.
"""

import gzip
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageOps
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

    def subset(self, chosen: Tensor | slice) -> "LabelledImages":
        """The images that a mask, indices or a slice choose; `skipped` is what the whole set skipped."""
        return replace(self, images=self.images[chosen], targets=self.targets[chosen])


@dataclass(frozen=True, slots=True)
class Entry:
    """One encoded image of a data set.

    Attributes:
        name: for messages.
        target: index of its label.
        content: the bytes, or the file that has them; None where the data set has a hole.
    """

    name: str
    target: int
    content: Path | bytes | None

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError: if there are none.
        """
        if self.content is None:
            raise FileNotFoundError("there is no image")
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


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
    return load_entries([Entry(str(path), target, path) for path, target in files], names, side)


def load_entries(entries: Sequence[Entry], labels: tuple[str, ...], side: int, *, crop: bool = False) -> LabelledImages:
    """Decode images to the working size; unreadable ones are listed in `skipped`, with the reason.

    Args:
        entries: where they are and what they show.
        labels: classes in logit order.
        side: S, pixels.
        crop: keep the square in the centre, for models that are served so; default: the whole image, squashed.

    Raises:
        DataError: when none can be read.
    """
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda entry: _read_image(entry, side, crop=crop), entries))
    read = [(pixels, each.target) for pixels, each in zip(results, entries, strict=True) if not isinstance(pixels, str)]
    skipped = tuple(reason for reason in results if isinstance(reason, str))
    if not read:
        reasons = (
            f" ({len(skipped)} could not be read): {'; '.join(skipped[:3])}" if skipped else ": the data set is empty"
        )
        raise DataError(f"no readable image{reasons}")
    images = torch.from_numpy(np.stack([pixels for pixels, _ in read])).permute(0, 3, 1, 2)
    return LabelledImages(images.contiguous(), torch.tensor([target for _, target in read]), labels, skipped)


def _read_image(entry: Entry, side: int, *, crop: bool) -> NDArray[np.uint8] | str:
    """RGB `[S, S, 3]`, or why the image could not be read."""
    try:
        data = entry.read()
        image = decode(data, read_header(data, ImageLimits()), at_least=(side, side), background=(0, 0, 0))
        return np.asarray(ImageOps.fit(image, (side, side)) if crop else image.resize((side, side)))
    except (ImageError, OSError) as error:
        return f"{entry.name}: {error}"


def hold_out(data: LabelledImages, share: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Split off that share of each class, at least one image of a class that has two; the rest comes first.

    Args:
        data: the images.
        share: 0..1; for 0 the second part is empty.
        seed: which images they are.
    """
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(data), dtype=torch.bool)
    for target in range(len(data.labels)) if share > 0 else ():
        members = (data.targets == target).nonzero()[:, 0]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator)[: max(0, count)]]] = True
    return data.subset(~held), data.subset(held)
