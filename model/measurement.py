"""Accuracy, calibration and speed along the served path: encoded bytes, decoded, resized and cut, then the model.

Axes: `M` images of a data set, `B` images of a batch, `N` patches, `D` width, `K` classes.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model.data import DataError, Entry
from model.headers import ImageError, ImageLimits
from model.preprocess import PatchSequence, preprocess
from model.reliability import Calibration, calibrate
from model.vit import VisionTransformer


@dataclass(frozen=True, slots=True)
class Result:
    """What was found at one patch budget."""

    max_patches: int  # budget of an image
    top1: float  # 0..1, over every readable image
    top5: float  # 0..1; 1 for a model of at most five classes
    per_class: tuple[float | None, ...]  # top-1 of the images of each class; None for a class without images
    calibration: Calibration
    images: int
    unreadable: int
    mean_patches: float  # used by an image
    images_per_second: float  # of the forward pass in PyTorch here, without decoding


def evaluate(
    model: VisionTransformer,
    entries: list[Entry],
    max_patches: int,
    batch: int = 250,
    console: Console | None = None,
) -> Result:
    """Measure `model` when no image may have more than `max_patches` patches.

    Args:
        model: on any device.
        entries: encoded images; an unreadable one is counted and left out.
        max_patches: budget of an image.
        batch: images a forward pass.
        console: where to show progress; None for silence.

    Raises:
        DataError: when no image can be read.
    """
    scores, targets, patches, seconds = [], [], 0, 0.0
    chunks = list(_chunks(entries, batch))
    for chunk in track(chunks, f"{max_patches} patches", console=console, transient=True) if console else chunks:
        readable = [(image, each.target) for each in chunk if (image := read(each, model, max_patches)) is not None]
        if readable:
            images = [image for image, _ in readable]
            before = time.perf_counter()
            scores.append(classify(model, images))
            seconds += time.perf_counter() - before
            targets += [target for _, target in readable]
            patches += sum(len(image.patches) for image in images)
    if not targets:
        raise DataError("no readable image to evaluate on")
    result = _summarise(np.concatenate(scores), np.array(targets), max_patches)
    count = len(targets)
    return replace(
        result, unreadable=len(entries) - count, mean_patches=patches / count, images_per_second=count / seconds
    )


def _summarise(scores: NDArray[np.float32], targets: NDArray[np.int64], max_patches: int) -> Result:
    """What the scores `[M, K]` of images that show `[M]` amount to."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    right = best[:, 0] == targets
    per_class = tuple(
        float(right[targets == label].mean()) if (targets == label).any() else None for label in range(scores.shape[1])
    )
    top5 = float((best == targets[:, None]).any(1).mean())
    calibration = calibrate(scores.max(1).astype(np.float64), right)
    return Result(max_patches, float(right.mean()), top5, per_class, calibration, len(targets), 0, 0.0, 0.0)


def read(entry: Entry, model: VisionTransformer, max_patches: int) -> PatchSequence | None:
    """The patches of an image, at most so many; None if it cannot be read."""
    try:
        return preprocess(entry.read(), model.preprocessing, ImageLimits(), max_patches=max_patches)
    except (ImageError, OSError):
        return None


def classify(model: VisionTransformer, images: list[PatchSequence]) -> NDArray[np.float32]:
    """Softmax scores `[B, K]`; the images share one padded batch."""
    logits, _ = forward(model, images)
    scores: NDArray[np.float32] = logits.float().softmax(-1).cpu().numpy()
    return scores


@torch.inference_mode()
def forward(model: VisionTransformer, images: list[PatchSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[B, K]` and embeddings `[B, D]` of images in one padded batch."""
    device = next(model.parameters()).device
    longest = max(len(image.patches) for image in images)
    patches = np.zeros((len(images), longest, model.preprocessing.patch_dim), np.uint8)
    for row, image in zip(patches, images, strict=True):
        row[: len(image.patches)] = image.patches
    grid = torch.tensor([image.grid for image in images], device=device)
    answers: tuple[torch.Tensor, torch.Tensor] = model(torch.from_numpy(patches).to(device), grid)
    return answers


def predict(model: VisionTransformer, images: list[PatchSequence]) -> list[int]:
    """The most likely class of each image; the images share one padded batch."""
    return [int(label) for label in classify(model, images).argmax(-1)]


def _chunks(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    source = iter(entries)
    while chunk := list(islice(source, size)):
        yield chunk
