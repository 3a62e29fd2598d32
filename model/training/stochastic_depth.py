"""Branches that some images skip while training ("Deep Networks with Stochastic Depth", Huang et al. 2016).

It belongs to a run and not to the architecture: hooks on what each branch ends with, its layer scale or the identity in
the place of one. Nothing of it is saved or exported, and in evaluation mode it does nothing.
"""

from functools import partial

import torch
from torch import Tensor, nn


def drop_paths(blocks: nn.ModuleList, rate: float) -> None:
    """Let images skip the branches of the last block at this rate, and those before it less, in even steps.

    Args:
        blocks: those of a VisionTransformer.
        rate: chance, 0 to below 1.
    """
    for index, block in enumerate(blocks if rate > 0 else ()):
        skip = partial(_skip, rate=rate * (index + 1) / len(blocks))
        for name, module in block.named_modules():
            if name.rpartition(".")[2] in {"scale1", "scale2"}:
                module.register_forward_hook(skip)


def _skip(module: nn.Module, _: tuple[Tensor, ...], branch: Tensor, *, rate: float) -> Tensor:
    """`[B, T, D]` to the same: zeros for some images, the others scaled so that the mean stays."""
    if not module.training:
        return branch
    kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= rate
    return branch * (kept / (1 - rate)).to(branch.dtype)
