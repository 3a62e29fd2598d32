"""Mixtures of two images of a batch, and of what they show: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

They work on patches: all images of a batch have one grid. CutMix exchanges whole patches, so that none holds two
images.

Axes: `B` images, `N` patches, `K` classes.
"""

import math

import torch
from torch import Tensor


def mix(
    patches: Tensor, targets: Tensor, grid: tuple[int, int], mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image with another one of the batch.

    Args:
        patches: uint8 `[B, N, P*P*C]`.
        targets: float32 `[B, K]`, what each image shows; rows sum to 1.
        grid: (rows, columns) of the batch.
        mixup: alpha of the Beta distribution of shares; 0 for never.
        cutmix: the same; with both, one of them is drawn.
        generator: of every random number.

    Returns:
        The same shapes and types.
    """
    if mixup == 0 and cutmix == 0:
        return patches, targets
    order = torch.randperm(len(patches), generator=generator)
    use_cutmix = mixup == 0 or (cutmix > 0 and bool(torch.rand((), generator=generator) < 0.5))
    share = draw_share(cutmix if use_cutmix else mixup, generator)
    if use_cutmix:
        patches, share = paste(patches, patches[order], grid, share, generator)
    else:
        patches = (share * patches.float() + (1 - share) * patches[order].float()).round().to(torch.uint8)
    return patches, share * targets + (1 - share) * targets[order]


def draw_share(alpha: float, generator: torch.Generator) -> float:
    """A number of 0..1 from Beta(alpha, alpha): X / (X + Y) of two Gamma numbers."""
    # torch.distributions takes no generator; this operator does.
    x, y = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator).tolist()
    return float(x / (x + y)) if x + y > 0 else 0.5


def paste(
    patches: Tensor, others: Tensor, grid: tuple[int, int], share: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Replace a rectangle of patches by those of the other images, about `1 - share` of the area.

    Returns:
        The patches, and the share of them that stayed.
    """
    rows, columns = grid
    height, width = (round(side * math.sqrt(1 - share)) for side in grid)
    top, left = (int(torch.randint(free + 1, (), generator=generator)) for free in (rows - height, columns - width))
    replaced = torch.zeros(rows, columns, dtype=torch.bool)
    replaced[top : top + height, left : left + width] = True
    mixed = torch.where(replaced.flatten()[:, None], others, patches)
    return mixed, 1 - height * width / (rows * columns)
