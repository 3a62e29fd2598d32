"""How good a model is while it trains: at its native size, on images in memory.

`model.evaluate` measures what is served.

Axes: `B` images, `N` patches, `K` classes.
"""

import torch
from accelerate import Accelerator
from torch import Tensor

from model.augment import STILL, augment
from model.data import LabelledImages
from model.vit import VisionTransformer


@torch.no_grad()
def confusion(
    model: VisionTransformer, data: LabelledImages, accelerator: Accelerator | None = None, batch: int = 500
) -> Tensor:
    """What the images of each class were taken for, over all processes.

    Returns:
        int64 `[K, K]`, rows are what an image shows, columns what the model said.
    """
    spec, device = model.preprocessing, next(model.parameters()).device
    index, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    own = data.subset(slice(index, None, processes))
    was_training = model.training
    model.eval()
    classes = len(data.labels)
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    for first in range(0, len(own), batch):
        images, targets = own.images[first : first + batch], own.targets[first : first + batch]
        patches = augment(images, spec.native_grid, spec.patch_size, STILL, torch.Generator())
        grid = torch.tensor([spec.native_grid]).expand(len(images), 2)
        logits, _ = model(patches.to(device), grid.to(device))
        counts += torch.bincount(targets * classes + logits.argmax(-1).cpu(), minlength=classes * classes)
    model.train(was_training)
    if accelerator:
        counts = accelerator.reduce(counts.to(accelerator.device), "sum").cpu()
    return counts.view(classes, classes)


def top1_of(matrix: Tensor) -> float:
    """Share of the diagonal, 0..1."""
    return float(matrix.diagonal().sum() / matrix.sum())


def native_top1(model: VisionTransformer, data: LabelledImages) -> float:
    """Top-1 at the native grid, 0..1."""
    return top1_of(confusion(model, data))
