"""Real images for an int8 export: what calibrates it, and what decides whether it is good enough.

Axes: `B` images, `N` patches, `K` classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.graph import ExportError
from export.quantize import Feed
from model.data import IMAGE_SUFFIXES, DataError, class_files
from model.headers import ImageError, ImageLimits
from model.manifest import Preprocessing
from model.preprocess import PatchSequence, preprocess

if TYPE_CHECKING:
    import onnxruntime

_BATCH = 8  # images of one run


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """What an int8 artifact must reach beside the float32 one, or it is not written."""

    images: int = 256  # images that calibrate, spread over the folder
    most_lost: float = 0.3  # points of top-1 on labelled images
    least_agreement: float = 98.0  # percent of images with the same most likely class, where none are labelled


@dataclass(frozen=True, slots=True)
class Quality:
    """An int8 artifact beside the float32 one, on the same images."""

    images: int
    agreement: float  # percent with the same most likely class
    top1: tuple[float, float] | None  # float32 and int8, percent; None without labels

    def problem(self, limits: QualityLimits) -> str | None:
        """Why this is not good enough, or None."""
        if self.top1 is not None:
            lost = self.top1[0] - self.top1[1]
            if lost <= limits.most_lost:
                return None
            return f"top-1 falls by {lost:.2f} points, more than {limits.most_lost:g} (--max-accuracy-loss)"
        if self.agreement >= limits.least_agreement:
            return None
        least = f"{limits.least_agreement:g} % (--min-agreement)"
        return f"it gives the same class for {self.agreement:.2f} % of the images, less than {least}"

    def text(self) -> str:
        """One line for people."""
        line = f"int8 beside float32 on {self.images} images: same class {self.agreement:.2f} %"
        return line if self.top1 is None else f"{line}, top-1 {self.top1[0]:.2f} % and {self.top1[1]:.2f} %"


def image_files(folder: Path, labels: tuple[str, ...]) -> tuple[list[Path], list[int] | None]:
    """The images of a folder, and what they show if it has one sub-folder a label.

    Raises:
        ExportError: when there is no image.
    """
    try:
        _, labelled = class_files(folder, labels)
        files, targets = [path for path, _ in labelled], [target for _, target in labelled]
        if files:
            return files, targets
    except DataError:  # not class folders: images of anything
        pass
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ExportError(f"{folder}: no image ({', '.join(sorted(IMAGE_SUFFIXES))}) to calibrate or measure with")
    return files, None


def spread(files: list[Path], count: int) -> list[Path]:
    """At most `count` of the files, from all over the list."""
    return [files[index] for index in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)]


def feeds(files: list[Path], spec: Preprocessing) -> Iterator[Feed]:
    """Batches of images of one grid, without padding.

    Raises:
        ExportError: for an image that cannot be read.
    """
    waiting: dict[tuple[int, int], list[PatchSequence]] = {}
    for path in files:
        image = _read(path, spec)
        group = waiting.setdefault(image.grid, [])
        group.append(image)
        if len(group) == _BATCH:
            yield _feed(waiting.pop(image.grid))
    yield from map(_feed, waiting.values())


def predictions(session: "onnxruntime.InferenceSession", files: list[Path], spec: Preprocessing) -> NDArray[np.int64]:
    """The most likely class of each image, int64 `[B]`."""
    found = []
    for path in files:
        image = _read(path, spec)
        found.append(int(session.run(["logits"], _feed([image]))[0][0].argmax()))
    return np.array(found, np.int64)


def compare_quality(float32: NDArray[np.int64], int8: NDArray[np.int64], targets: list[int] | None) -> Quality:
    """Most likely classes of both, `[B]` each, and the true ones."""
    agreement = 100 * float((float32 == int8).mean())
    if targets is None:
        return Quality(len(int8), agreement, None)
    top1 = 100 * float((float32 == targets).mean()), 100 * float((int8 == targets).mean())
    return Quality(len(int8), agreement, top1)


def _read(path: Path, spec: Preprocessing) -> PatchSequence:
    try:
        return preprocess(path.read_bytes(), spec, ImageLimits())
    except ImageError as error:
        raise ExportError(f"{path}: {error}") from None


def _feed(images: list[PatchSequence]) -> Feed:
    return {
        "patches": np.stack([image.patches for image in images]),
        "grid": np.array([image.grid for image in images], np.int64),
    }
