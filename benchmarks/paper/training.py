"""One trial from random or earlier weights to a result. All models learn by one recipe from the same batches.

AdamW with warm-up and cosine decay, batches of 64, the native size alone, labels smoothed by 0.1. Images are mirrored,
and moved, zoomed and stretched a little. Nothing was tuned for one of the models.
"""

import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.paper.trials import Result, Trial
from model import pretrain, resnet
from model.augment import Augmentation
from model.bit import ResNet, decode_resnet
from model.checkpoints import native
from model.checkpoints.native import Description
from model.data import LabelledImages
from model.loop import Loop, run_to_the_end
from model.manifest import Preprocessing
from model.training.recipe import Recipe
from model.training.starting import at_resolution, with_new_head
from model.training.validation import native_top1
from model.vit import VisionTransformer, decode_variant

AUGMENTATION = Augmentation(native_share=1.0, zoom=(0.9, 1.1), stretch=1.1, shift=0.05)
CHECKPOINT = "model.safetensors"


def run(trial: Trial, work: Path, data: LabelledImages, test: LabelledImages) -> Result:
    """Train to the end, or on from where a killed run was, and measure.

    Args:
        trial: what to train; that from which it starts is done.
        work: every trial has a folder there.
        data: all training images.
        test: images to measure with.
    """
    folder = work / trial.name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(trial.seed)
    model = _model(trial, work, len(data.labels))
    operations = 3 * _operations(model) * trial.seen / 1e12
    seconds = _train(model, trial, data, folder) if trial.seen else 0.0
    top1 = None if trial.target else native_top1(model, test)  # type: ignore[arg-type]
    if isinstance(model, VisionTransformer):
        labels = data.labels if model.config.classes else ()
        native.save(folder / CHECKPOINT, model, Description(labels, "trial"))
    return Result(trial, top1, round(operations, 3), round(seconds, 1))


def _model(trial: Trial, work: Path, classes: int) -> VisionTransformer | ResNet:
    if trial.start is not None:
        model, _ = native.load(work / trial.start.name / CHECKPOINT)
        if trial.side != trial.start.side:
            model = at_resolution(model, trial.side)
        return model if model.config.classes else with_new_head(model, classes)
    if trial.model.startswith("R") and "+" not in trial.model:
        layers, factor = decode_resnet(trial.model)
        side = trial.side // 4
        return ResNet(layers, factor, classes, Preprocessing(4, (side, side), side**2, "aspect"))
    config, spec = decode_variant(trial.model, image_size=trial.side, classes=0 if trial.target else classes)
    return VisionTransformer(config, replace(spec, resize="aspect", resize_to=None))


def _train(model: VisionTransformer | ResNet, trial: Trial, data: LabelledImages, folder: Path) -> float:
    """Processor seconds of all steps, over all resumes."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(trial.seed))
    chosen = data.subset(order[: trial.images])
    recipe = Recipe(trial.seen // trial.images, 64, trial.rate, seed=trial.seed)
    loop = _loop(model, trial, chosen, recipe)
    clock = folder / "cpu_seconds"
    spent, before = float(clock.read_text()) if clock.exists() else 0.0, time.process_time()

    def note() -> dict[str, float]:
        nonlocal spent, before
        spent, before = spent + time.process_time() - before, time.process_time()
        clock.write_text(str(spent))
        return {"cpu_seconds": round(spent, 1)}

    run_to_the_end(loop, folder, Console(quiet=True), note)
    return spent


def _loop(model: VisionTransformer | ResNet, trial: Trial, data: LabelledImages, recipe: Recipe) -> Loop:
    if trial.target and isinstance(model, VisionTransformer):
        learner = pretrain.MaskedPrediction(model, trial.target)
        return pretrain.make_loop(learner, data.images, AUGMENTATION, recipe)
    return resnet.make_loop(model, data, AUGMENTATION, recipe)  # type: ignore[arg-type]


@torch.no_grad()
def _operations(model: VisionTransformer | ResNet) -> int:
    """Of the forward pass of one image."""
    spec = model.preprocessing
    patches = torch.zeros(1, spec.native_grid[0] * spec.native_grid[1], spec.patch_dim, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model(patches, torch.tensor([spec.native_grid]))
    return int(counter.get_total_flops())
