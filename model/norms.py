"""Normalisation of tokens."""

import torch
from torch import Tensor, nn

from model.architecture import ViTConfig


class RmsNorm(nn.Module):
    """Divide by the root of the mean square, then scale (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., width]` to the same; the mean is taken in float32."""
        wide = tokens.float()
        factor = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * factor).to(tokens.dtype) * self.weight


def make_norm(config: ViTConfig, width: int) -> nn.Module:
    """The norm of this architecture, over `width` values."""
    if config.norm == "rms":
        return RmsNorm(width, config.norm_epsilon)
    return nn.LayerNorm(width, eps=config.norm_epsilon)
