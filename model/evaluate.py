"""Top-1 of a checkpoint along the served path: encoded bytes, decoded, resized and cut by `model.preprocess`.

    python -m model.evaluate runs/fashion/model.safetensors --max-patches 49,36,25,16 --write

With `--write` the accuracy curve goes into the checkpoint, from there into the artifact, and brown-out reads it.

Axes: `B` images, `N` patches.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from model.checkpoints import native
from model.checkpoints.loading import CheckpointError
from model.data import FASHION_MNIST_PATH, DataError, class_files, load_fashion_mnist
from model.headers import ImageError, ImageLimits
from model.manifest import Accuracy
from model.preprocess import PatchSequence, preprocess
from model.vit import VisionTransformer


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """An encoded image and the index of what it shows."""

    data: bytes
    target: int


@dataclass(frozen=True, slots=True)
class Result:
    """Accuracy at one patch budget."""

    max_patches: int  # budget of an image
    top1: float  # 0..1, over every readable image
    images: int
    unreadable: int
    mean_patches: float  # used by an image


def fashion_mnist_files(root: Path = FASHION_MNIST_PATH) -> list[LabelledFile]:
    """The 10,000 test images as PNG files.

    Raises:
        DataError: when the data set is not installed.
    """
    data = load_fashion_mnist("test", root)
    return [
        LabelledFile(_png(pixels), int(target))
        for pixels, target in zip(data.images[:, 0].numpy(), data.targets, strict=True)
    ]


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def folder_files(root: Path, labels: tuple[str, ...]) -> list[LabelledFile]:
    """The images of a folder of class folders, whose names are among `labels`.

    Raises:
        DataError: for a folder that is not a label, or when nothing is there.
    """
    return [LabelledFile(path.read_bytes(), target) for path, target in class_files(root, labels)[1]]


@torch.inference_mode()
def evaluate(
    model: VisionTransformer,
    files: list[LabelledFile],
    max_patches: int,
    batch: int = 250,
    console: Console | None = None,
) -> Result:
    """Top-1 of `model` when no image may have more than `max_patches` patches.

    Args:
        model: on any device.
        files: encoded images; an unreadable one is counted and left out.
        max_patches: budget of an image.
        batch: images a forward pass.
        console: where to show progress; None for silence.
    """
    correct = total = patches = 0
    chunks = list(_chunks(files, batch))
    steps = track(chunks, f"{max_patches} patches", console=console, transient=True) if console else chunks
    for chunk in steps:
        readable = [(image, file.target) for file in chunk if (image := _read(file, model, max_patches)) is not None]
        if readable:
            images = [image for image, _ in readable]
            predicted = predict(model, images)
            correct += sum(int(label == target) for label, (_, target) in zip(predicted, readable, strict=True))
            total += len(images)
            patches += sum(len(image.patches) for image in images)
    if total == 0:
        raise DataError("no readable image to evaluate on")
    return Result(max_patches, correct / total, total, len(files) - total, patches / total)


def _read(file: LabelledFile, model: VisionTransformer, max_patches: int) -> PatchSequence | None:
    try:
        return preprocess(file.data, model.preprocessing, ImageLimits(), max_patches=max_patches)
    except ImageError:
        return None


def predict(model: VisionTransformer, images: list[PatchSequence]) -> list[int]:
    """The most likely class of each image; the images share one padded batch."""
    device = next(model.parameters()).device
    longest = max(len(image.patches) for image in images)
    patches = np.zeros((len(images), longest, model.preprocessing.patch_dim), np.uint8)
    for row, image in zip(patches, images, strict=True):
        row[: len(image.patches)] = image.patches
    grid = torch.tensor([image.grid for image in images], device=device)
    logits, _ = model(torch.from_numpy(patches).to(device), grid)
    return [int(label) for label in logits.argmax(-1)]


def _chunks(files: Iterable[LabelledFile], size: int) -> Iterator[list[LabelledFile]]:
    source = iter(files)
    while chunk := list(islice(source, size)):
        yield chunk


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint written by model.train.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of class folders; default the Fashion-MNIST test set.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Name of the data set in the record.")] = "Fashion-MNIST test",
    max_patches: Annotated[str, typer.Option(help="Patch budgets, separated by commas; default the native one.")] = "",
    write: Annotated[bool, typer.Option("--write", help="Record the curve in the checkpoint.")] = False,
) -> None:
    """Measure top-1 at one or several patch budgets."""
    console = Console()
    try:
        model, description = native.load(checkpoint)
        budgets = [int(text) for text in max_patches.split(",") if text] or [model.preprocessing.native_patches]
        files = fashion_mnist_files() if data is None else folder_files(data, description.labels)
        started = time.monotonic()
        results = [evaluate(model, files, budget, console=console) for budget in sorted(set(budgets))]
    except (CheckpointError, DataError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    for result in results:
        console.print(
            f"max_patches {result.max_patches}: top-1 {result.top1:.4f} on {result.images} images "
            f"({result.unreadable} unreadable, {result.mean_patches:.1f} patches an image)"
        )
    counts = Counter(file.target for file in files)
    console.print(f"{dataset}: {len(files)} files of {len(counts)} classes, {time.monotonic() - started:.0f} s")
    if write:
        curve = tuple((result.max_patches, result.top1) for result in results)
        native.save(checkpoint, model, replace(description, accuracy=Accuracy(dataset, curve)))


def main() -> None:
    """Entry of `python -m model.evaluate`."""
    typer.run(command)


if __name__ == "__main__":
    main()
