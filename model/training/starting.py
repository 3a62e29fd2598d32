"""The model that a run starts from: random weights, or a checkpoint made ready for other classes and images.

Axis: `K` classes.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from model.architecture import ViTConfig
from model.checkpoints.loading import load_weights
from model.manifest import Preprocessing
from model.resolution import resampled_weights
from model.vit import VisionTransformer

_HEADS = ("head.", "distillation_head.")


def with_new_head(model: VisionTransformer, classes: int) -> VisionTransformer:
    """The same model with a head of zeros for other classes.

    The whole pre-trained head goes, its hidden layer too, and one linear layer takes its place (paper, section 3.2 and
    appendix B.1.1): all logits are zero until the first step.

    Args:
        model: left as it is.
        classes: K.
    """
    config = replace(model.config, classes=classes, pre_logits=0)
    kept = {
        name: weight for name, weight in model.state_dict().items() if not name.startswith(("pre_logits.", *_HEADS))
    }
    return _rebuilt(config, model.preprocessing, kept)


def at_resolution(model: VisionTransformer, side: int) -> VisionTransformer:
    """The same model with another native size: its positions are resampled (paper, section 3.2).

    They are as the model itself would have them for an image of that size, so the answers for such images stay; with
    relative ones, nearly.

    Args:
        model: left as it is.
        side: of the new native image, pixels; a multiple of the patch.

    Raises:
        ValueError: for a side that is no multiple of the patch, or larger than 4096.
    """
    spec = model.preprocessing
    patch = spec.patch_size
    if side % patch or not patch <= side <= 4096:
        raise ValueError(f"--resolution {side} must be a multiple of the patch, {patch} pixels, and at most 4096")
    grid = (side // patch, side // patch)
    return _rebuilt(model.config, _resized(spec, grid), resampled_weights(model, grid))


def evaluated_side(spec: Preprocessing) -> int:
    """Side of the images that a checkpoint is used with, pixels; its position table may be for larger ones (DINOv2)."""
    return min(*spec.native_grid, math.isqrt(spec.max_patches)) * spec.patch_size


def freeze_all_but_head(model: VisionTransformer) -> None:
    """Leave only the head to be trained."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(_HEADS))


def _resized(spec: Preprocessing, grid: tuple[int, int]) -> Preprocessing:
    """The proportion between the resized image and the crop stays."""
    growth = grid[0] / min(spec.native_grid)
    resize_to = None if spec.resize_to is None else round(spec.resize_to * growth)
    return replace(spec, native_grid=grid, max_patches=4 * grid[0] * grid[1], resize_to=resize_to)


def _rebuilt(config: ViTConfig, spec: Preprocessing, weights: Mapping[str, Tensor]) -> VisionTransformer:
    """A model of these weights; a head that is not among them is zero."""
    with torch.device("meta"):
        model = VisionTransformer(config, spec)
    heads = {
        name: torch.zeros(weight.shape)
        for name, weight in model.state_dict().items()
        if name.startswith(_HEADS) and name not in weights
    }
    load_weights(model, {**weights, **heads})
    return model
