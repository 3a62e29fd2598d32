"""The paper's three ways to measure how a checkpoint transfers to other images (section 4.1 and appendix B.1.1).

Axes: `M` images, `D` features, `K` classes.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from model.augment import Augmentation
from model.data import DataError, Entry
from model.few_shot import draw_shots, fit, standardised
from model.measurement import evaluate, forward, read
from model.training.loop import Outputs, train
from model.training.materials import Request, prepare
from model.training.processes import open_accelerator
from model.training.recipe import default_batch, recipe_of
from model.training.run import start_run
from model.vit import VisionTransformer


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one protocol gave."""

    protocol: str
    images: int  # learnt from
    top1: float  # 0..1, mean over draws
    deviation: float  # of the draws; 0 for one
    seconds: float


def features_of(
    model: VisionTransformer, entries: list[Entry], batch: int = 100
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Embeddings `[M, D]` of the readable images at the native size, and what they show `[M]`."""
    features, targets = [], []
    budget = min(model.preprocessing.native_patches, model.preprocessing.max_patches)
    for first in range(0, len(entries), batch):
        chunk = [(read(entry, model, budget), entry.target) for entry in entries[first : first + batch]]
        images = [image for image, _ in chunk if image is not None]
        if images:
            features.append(forward(model, images)[1].double().cpu().numpy())
            targets += [target for image, target in chunk if image is not None]
    if not targets:
        raise DataError("no readable image to learn from")
    return np.concatenate(features), np.array(targets)


def few_shot(
    model: VisionTransformer,
    data: list[Entry],
    test: list[Entry],
    classes: int,
    shots: tuple[int, ...],
    draws: int = 3,
    l2: float = 1024.0,
) -> Iterator[Transfer]:
    """Closed-form linear evaluation, for each number of images a class; features are computed once.

    Args:
        model: frozen.
        data: images to draw from.
        test: images to measure with.
        classes: K.
        shots: images of each class.
        draws: times that other images are drawn.
        l2: as in `few_shot.fit`, for standardised features.
    """
    features, targets = features_of(model, data)
    test_features, test_targets = features_of(model, test)
    for count in shots:
        started, found, chosen = time.monotonic(), [], np.array([], np.int64)
        for seed in range(draws):
            chosen = draw_shots(targets, count, seed)
            few, many = standardised(features[chosen], test_features)
            scores = fit(few, targets[chosen], classes, l2).scores(many)
            found.append(float((scores.argmax(1) == test_targets).mean()))
        seconds = time.monotonic() - started
        yield Transfer(f"{count}-shot", len(chosen), float(np.mean(found)), float(np.std(found)), seconds)


def fine_tune(request: Request, test: list[Entry], epochs: int, *, freeze: bool, folder: Path) -> Transfer:
    """Train the head, or all weights, with the paper's SGD, and measure what comes of it.

    Args:
        request: source and data.
        test: images to measure with.
        epochs: passes over the data.
        freeze: the head alone.
        folder: for the checkpoint and the state, so that it can be continued.
    """
    started, quiet = time.monotonic(), Console(quiet=True)
    materials = prepare(request, Augmentation(), quiet)
    recipe = recipe_of(
        fine_tuning=True, epochs=epochs, batch=default_batch(len(materials.data), 1), freeze=freeze, seed=request.seed
    )
    run = start_run(materials.model, recipe, open_accelerator("float32", cpu=False))
    train(
        run, materials.data, materials.validation, materials.augmentation, Outputs(folder, materials.description), quiet
    )
    result = evaluate(run.kept.eval(), test, run.model.preprocessing.native_patches)
    name = "linear" if freeze else "full"
    return Transfer(name, len(materials.data), result.top1, 0.0, time.monotonic() - started)
