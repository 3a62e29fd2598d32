"""One epoch, step by step.

Axes: `B` images of one process and part of a batch, `N` patches, `K` classes.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from model.augment import Augmentation, augment, calm, draw_grid
from model.data import LabelledImages
from model.mixing import mix
from model.training.run import Run
from model.training.schedule import learning_rate
from model.training.seeds import generator_at, seed_of
from model.training.teacher import Teacher, divergence


def train_epoch(run: Run, data: LabelledImages, augmentation: Augmentation) -> Iterator[float]:
    """Train one epoch, or what is left of it; yields the loss of each step.

    What a step sees and draws depends on the seed, the epoch and its number alone.

    Raises:
        ValueError: when the loss is no number any more.
    """
    recipe, progress = run.recipe, run.progress
    steps, epoch = recipe.steps(len(data)), progress.epoch
    if epoch >= round((1 - recipe.calm_share) * recipe.epochs):
        augmentation = calm(augmentation)
    order = torch.randperm(len(data), generator=generator_at(recipe.seed, epoch))
    run.model.train(not recipe.freeze)  # a frozen model computes its features as it will be served
    while progress.step < steps:
        index = progress.step
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(epoch * steps + index, recipe.epochs * steps, recipe)
        loss = _step(run, data, order[index * recipe.batch : (index + 1) * recipe.batch], augmentation)
        if math.isnan(loss):
            raise ValueError(f"the loss of step {index} of epoch {epoch + 1} is no number: lower --learning-rate")
        progress.step, progress.loss = index + 1, progress.loss + loss
        yield loss
    progress.epoch, progress.step = epoch + 1, 0


def _step(run: Run, data: LabelledImages, chosen: Tensor, augmentation: Augmentation) -> float:
    """Change the weights once; the mean loss over all processes."""
    recipe, accelerator = run.recipe, run.accelerator
    place = (recipe.seed, run.progress.epoch, run.progress.step + 1)
    shape = draw_grid(run.model.preprocessing, augmentation, generator_at(*place))
    own = (*place, accelerator.process_index)
    generator = generator_at(*own)
    torch.manual_seed(seed_of(*own, 1))  # of skipped branches
    parts = chosen[accelerator.process_index :: accelerator.num_processes].tensor_split(recipe.accumulate)
    total = torch.zeros((), device=accelerator.device)
    for number, part in enumerate(parts, 1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(run.wrapped):
            loss = _loss(run, data.subset(part), shape, augmentation, generator) / len(parts)
            accelerator.backward(loss)
        total += loss.detach()
    accelerator.clip_grad_norm_(run.model.parameters(), recipe.max_gradient_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    if run.average is not None:
        run.average.update_parameters(run.model)
    return float(accelerator.reduce(total, "mean"))


def _loss(
    run: Run, data: LabelledImages, shape: tuple[int, int], augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    recipe, device = run.recipe, run.accelerator.device
    patches = augment(data.images, shape, run.model.preprocessing.patch_size, augmentation, generator)
    targets = F.one_hot(data.targets, len(data.labels)).float()
    patches, targets = mix(patches, targets, shape, recipe.mixup, recipe.cutmix, generator)
    patches, grid = patches.to(device), torch.tensor([shape], device=device).expand(len(patches), 2)
    logits, _ = run.wrapped(patches, grid)
    loss = F.cross_entropy(logits.float(), targets.to(device), label_smoothing=recipe.label_smoothing)
    return loss if run.teacher is None else _taught(run, run.teacher, patches, grid, logits, loss)


def _taught(run: Run, teacher: Teacher, patches: Tensor, grid: Tensor, logits: Tensor, loss: Tensor) -> Tensor:
    """The loss of the labels, mixed with how far the logits are from what the teacher says of the same patches."""
    with run.accelerator.autocast():
        answers = teacher.ask(patches, grid)
    weight = run.recipe.teacher_weight
    return weight * divergence(logits, answers, run.recipe.temperature) + (1 - weight) * loss
