"""The transformer block in the layouts that published families use.

Axes: `B` images, `T` tokens (padded), `D` width, `M` hidden size of the MLP.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from model.architecture import Activation, ViTConfig
from model.attention import Attention, DifferentialAttention
from model.norms import make_norm
from model.positions import Grid, Places
from model.relative import RelativeAttention


class QuickGelu(nn.Module):
    """OpenAI's approximation of GELU, `x * sigmoid(1.702 x)` (CLIP)."""

    def forward(self, values: Tensor) -> Tensor:
        """Any shape to the same."""
        return values * torch.sigmoid(1.702 * values)


class Gate(nn.Module):
    """Multiply one half of the values by the activation of the other ("GLU Variants", Shazeer 2020)."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, values: Tensor) -> Tensor:
        """`[..., 2*M]`, the gate first, to `[..., M]`."""
        gate, value = values.chunk(2, dim=-1)
        gated: Tensor = self.activation(gate) * value
        return gated


_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu-tanh": partial(nn.GELU, approximate="tanh"),
    "quick-gelu": QuickGelu,
    "silu": nn.SiLU,
}


def make_mlp(config: ViTConfig, *, inner_norm: bool = False) -> nn.Sequential:
    """Two linear layers and what is between them, `[..., D]` to `[..., D]`."""
    activation = _ACTIVATIONS[config.activation]()
    if config.gated_mlp:
        activation = Gate(activation)
    if inner_norm:
        activation = nn.Sequential(activation, make_norm(config, config.mlp_dim))
    hidden = config.mlp_dim * (2 if config.gated_mlp else 1)
    return nn.Sequential(nn.Linear(config.width, hidden), activation, nn.Linear(config.mlp_dim, config.width))


def leading(tokens: Tensor, first: int | None) -> Tensor:
    """The first tokens, `[B, first, D]`, or all of them."""
    return tokens if first is None else tokens[:, :first]


class LayerScale(nn.Module):
    """A learned factor for each channel ("Going deeper with Image Transformers", Touvron et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., D]` to the same."""
        return tokens * self.factor


class Block(nn.Module):
    """Equations 2 and 3: pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: ViTConfig, native_grid: Grid) -> None:
        super().__init__()
        self.norm1 = make_norm(config, config.width)
        self.attention = make_attention(config, native_grid)
        self.scale1 = LayerScale(config.width) if config.layer_scale else nn.Identity()
        self.norm2 = make_norm(config, config.width)
        self.mlp = make_mlp(config, inner_norm=config.inner_norm)
        self.scale2 = LayerScale(config.width) if config.layer_scale else nn.Identity()

    def attend(self, tokens: Tensor, lengths: Tensor, first: int | None = None, places: Places | None = None) -> Tensor:
        """The branch of attention, of all tokens or of the first ones."""
        attended: Tensor = self.scale1(self.attention(self.norm1(tokens), lengths, first, places))
        return attended

    def transform(self, tokens: Tensor) -> Tensor:
        """The branch of the MLP."""
        transformed: Tensor = self.scale2(self.mlp(self.norm2(tokens)))
        return transformed

    def forward(
        self, tokens: Tensor, lengths: Tensor, first: int | None = None, places: Places | None = None
    ) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]`, their places if needed, to `[B, T, D]`, or `[B, first, D]`."""
        tokens = leading(tokens, first) + self.attend(tokens, lengths, first, places)
        return tokens + self.transform(tokens)


class PostNormBlock(Block):
    """The norms come after the branches ("Swin Transformer V2", Liu et al. 2021, section 3.2)."""

    def attend(self, tokens: Tensor, lengths: Tensor, first: int | None = None, places: Places | None = None) -> Tensor:
        """The branch of attention, of all tokens or of the first ones."""
        attended: Tensor = self.scale1(self.norm1(self.attention(tokens, lengths, first, places)))
        return attended

    def transform(self, tokens: Tensor) -> Tensor:
        """The branch of the MLP."""
        transformed: Tensor = self.scale2(self.norm2(self.mlp(tokens)))
        return transformed


class ParallelBlock(Block):
    """Attention and MLP read the same tokens ("Scaling Vision Transformers to 22 Billion Parameters", 2023)."""

    def forward(
        self, tokens: Tensor, lengths: Tensor, first: int | None = None, places: Places | None = None
    ) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]`, their places if needed, to `[B, T, D]`, or `[B, first, D]`."""
        own = leading(tokens, first)
        return own + self.attend(tokens, lengths, first, places) + self.transform(own)


class BranchedBlock(nn.Module):
    """Several attentions side by side, then as many MLPs ("Three things everyone should know", Touvron et al. 2022)."""

    def __init__(self, config: ViTConfig, native_grid: Grid) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Block(config, native_grid) for _ in range(config.branches))

    def forward(
        self, tokens: Tensor, lengths: Tensor, first: int | None = None, places: Places | None = None
    ) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]`, their places if needed, to `[B, T, D]`, or `[B, first, D]`."""
        branches = [branch for branch in self.branches if isinstance(branch, Block)]
        attended = torch.stack([branch.attend(tokens, lengths, first, places) for branch in branches]).sum(0)
        tokens = leading(tokens, first) + attended
        return tokens + torch.stack([branch.transform(tokens) for branch in branches]).sum(0)


def make_attention(config: ViTConfig, native_grid: Grid) -> Attention:
    """Self-attention of this architecture."""
    if config.positions == "relative":
        return RelativeAttention(config, native_grid)
    return DifferentialAttention(config) if config.attention == "differential" else Attention(config)


def make_block(config: ViTConfig, native_grid: Grid) -> nn.Module:
    """One block of this architecture; relative positions are those of its native grid."""
    if config.branches > 1:
        return BranchedBlock(config, native_grid)
    layouts = {"sequential": Block, "post-norm": PostNormBlock, "parallel": ParallelBlock}
    return layouts[config.block](config, native_grid)
