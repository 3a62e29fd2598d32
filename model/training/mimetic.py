"""Begin with attention as trained models have it, for those who have few images and train from nothing.

"Mimetic Initialization of Self-Attention Layers" (Trockman & Kolter 2023): of a trained ViT the product of queries and
keys is near the identity, so that a patch attends to patches like itself, and the product of values and projection near
the negative identity. Who begins there need not learn it first. Positions begin as waves, so that near ones are alike.

Axes: `D` width, `H` heads, `R`, `C` rows and columns of the native grid.
"""

import math

import torch
from torch import Tensor

from model.attention import Attention
from model.positions import Grid, PositionEmbedding
from model.relative import RelativeAttention
from model.vit import VisionTransformer

_QUERY_KEY, _VALUE = 0.7, 0.4  # of the identity and of the noise beside it; the paper's
_AMPLITUDE = 0.7  # of positions, beside embedded patches of about 1
_SHORTEST = 4.0  # patches of a wave; the longest is ten native sides


@torch.no_grad()
def begin_mimetically(model: VisionTransformer) -> None:
    """Draw the weights of attention and of 1-D positions anew; the others stay as they are.

    Attention with relative positions is left out: the paper says nothing of it. The random numbers are those of
    `torch.manual_seed`.
    """
    for module in model.modules():
        if isinstance(module, PositionEmbedding):
            module.table.copy_(_waves(module.native_grid, module.table.shape[1]))
        elif isinstance(module, Attention) and not isinstance(module, RelativeAttention):
            _mimic(module)


def _mimic(attention: Attention) -> None:
    width, heads = attention.project.in_features, attention.heads
    size = width // heads
    query, key, value = attention.qkv.weight.chunk(3)
    for start in range(0, width, size):
        left, right = _factors(_noise(width, _QUERY_KEY) + _QUERY_KEY * torch.eye(width), size)
        query[start : start + size], key[start : start + size] = left.T, right
    left, right = _factors(_noise(width, _VALUE) - _VALUE * torch.eye(width), width)
    value.copy_(left.T)
    attention.project.weight.copy_(right.T)


def _noise(width: int, scale: float) -> Tensor:
    return torch.randn(width, width) * scale / math.sqrt(width)


def _factors(product: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`[D, rank]` and `[rank, D]` whose product is the nearest of this rank to `[D, D]`, equally large."""
    left, sizes, right = torch.linalg.svd(product)
    root = sizes[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _waves(grid: Grid, width: int) -> Tensor:
    """`[R*C, D]`: sines and cosines of rows and of columns, a quarter of the width each; what is left over is zero."""
    longest = 10.0 * max(grid)
    lengths = torch.logspace(math.log10(_SHORTEST), math.log10(longest), width // 4)
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()  # [R*C, 2]
    angles = (2 * math.pi * places[:, :, None] / lengths).flatten(1)
    waves = torch.zeros(grid[0] * grid[1], width)
    waves[:, : 2 * angles.shape[1]] = _AMPLITUDE * torch.cat([angles.sin(), angles.cos()], dim=1)
    return waves
