"""How far attention looks: mean distance in pixels from a patch to the patches that it attends to (figure 7, right).

The distance between two patches is that of their centres. As in appendix D.7 each is weighted by the attention that it
gets. Class token and registers are left out: they have no place, and what a patch gives to patches alone is made to sum
to 1.

Axes: `B` images, `N` patches, `T` tokens, `H` heads, `L` blocks.
"""

import torch
from torch import Tensor

from model.attention import masked_attention
from model.rollout import Watcher, head_weights
from model.vit import VisionTransformer


@torch.no_grad()
def attention_distances(model: VisionTransformer, patches: Tensor, grid: Tensor) -> Tensor:
    """Mean attention distance of each head of each block, over the patches of one image: pixels, `[L, H]`.

    A block with several attentions, or several maps in one, has all of their heads side by side.

    Args:
        model: left as it is; attends as by default afterwards.
        patches: uint8 `[1, N, P*P*C]`, without padding.
        grid: int64 `[1, 2]`.
    """
    watcher = Watcher(masked_attention, head_weights)
    model.attend_with(watcher)
    try:
        model.encode(model.embed(patches, grid), grid)
    finally:
        model.attend_with(masked_attention)
    between = patch_distances(grid[0], model.preprocessing.patch_size)
    found = [mean_distance(weights[0], between) for weights in watcher.take()]  # [H] each
    return torch.stack(found).view(model.config.depth, -1)


def patch_distances(grid: Tensor, patch_size: int) -> Tensor:
    """Pixels from the centre of each patch to that of each: rows and columns `[2]` to `[N, N]`."""
    rows, columns = grid.tolist()
    place = torch.arange(rows * columns, device=grid.device)
    centres = torch.stack([place // columns, place % columns], dim=-1).double() * patch_size  # [N, 2]
    return torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")


def mean_distance(weights: Tensor, between: Tensor) -> Tensor:
    """Distances weighted by attention, the mean over the patches that attend.

    Args:
        weights: `[H, T, T]`, attending tokens first; tokens before the patches are the first ones.
        between: `[N, N]`, pixels.

    Returns:
        float64 `[H]`.
    """
    count = len(between)
    among_patches = weights[:, -count:, -count:].double()
    shares = among_patches / among_patches.sum(-1, keepdim=True).clamp(min=1e-30)
    return (shares * between).sum(-1).mean(-1)
