"""The Vision Transformer over patch sequences ("An Image is Worth 16x16 Words", Dosovitskiy et al. 2021, section 3).

The model takes what serving sends: uint8 patches, padded to the longest image of the batch, and each image's own grid.
Read it top to bottom; `VisionTransformer.forward` at the end is equations 1 to 4 of the paper.

Axes: `B` images, `N` patches (padded), `T` = 1 + N tokens, `D` width, `H` heads, `P` patch side, `C` channels,
`K` classes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.manifest import PositionInterpolation, Preprocessing
from model.positions import PositionEmbedding


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """The architecture. What a patch is (its size, the native grid, the normalisation) is in `Preprocessing`."""

    width: int  # D, the size of a token
    depth: int  # number of blocks
    heads: int  # attention heads; each sees D / heads values
    mlp_dim: int  # hidden size of the MLP, 4*D in the paper
    classes: int = 1000  # K, size of the head
    norm_epsilon: float = 1e-6  # of every LayerNorm; the value of the reference implementation
    position_interpolation: PositionInterpolation = "bicubic"


# Table 1 of the paper, with Ti and S from DeiT (Touvron et al. 2021); then a family for images of 28 to 64 pixels.
_VARIANTS: dict[str, tuple[ViTConfig, tuple[int, ...], int]] = {
    # name: (architecture, patch sizes, image side in pixels)
    "Ti": (ViTConfig(width=192, depth=12, heads=3, mlp_dim=768), (14, 16, 32), 224),
    "S": (ViTConfig(width=384, depth=12, heads=6, mlp_dim=1536), (14, 16, 32), 224),
    "B": (ViTConfig(width=768, depth=12, heads=12, mlp_dim=3072), (14, 16, 32), 224),
    "L": (ViTConfig(width=1024, depth=24, heads=16, mlp_dim=4096), (14, 16, 32), 224),
    "H": (ViTConfig(width=1280, depth=32, heads=16, mlp_dim=5120), (14, 16, 32), 224),
    "Femto": (ViTConfig(width=64, depth=6, heads=2, mlp_dim=256), (4, 7, 8), 28),
    "Pico": (ViTConfig(width=96, depth=6, heads=3, mlp_dim=384), (4, 7, 8), 28),
    "Nano": (ViTConfig(width=128, depth=8, heads=4, mlp_dim=512), (4, 7, 8), 28),
}


def decode_variant(name: str, *, image_size: int | None = None, classes: int = 1000) -> tuple[ViTConfig, Preprocessing]:
    """The architecture and the preprocessing that a name such as `B/16` stands for.

    Args:
        name: size and patch side, `Ti S B L H` with `/14 /16 /32`, `Femto Pico Nano` with `/4 /7 /8`.
        image_size: side of the native image, pixels, 7 to 4096; default 224, or 28 for the small family.
        classes: size of the head.

    Raises:
        ValueError: for an unknown name, or a side smaller than one patch.
    """
    matched = re.fullmatch(r"([A-Za-z]+)/(\d{1,3})", name)
    size, patch = (matched[1], int(matched[2])) if matched else ("", 0)
    if size not in _VARIANTS or patch not in _VARIANTS[size][1]:
        known = ", ".join(f"{key}/{side}" for key, (_, sides, _) in _VARIANTS.items() for side in sides)
        raise ValueError(f"{name!r} is not a known variant; choose one of {known}")
    architecture, _, default_size = _VARIANTS[size]
    side = default_size if image_size is None else image_size
    if not patch <= side <= 4096:
        raise ValueError(f"image_size must be from {patch} (one patch) to 4096 pixels, not {side}")
    grid = (side // patch, side // patch)
    preprocessing = Preprocessing(
        patch_size=patch,
        native_grid=grid,
        max_patches=4 * grid[0] * grid[1],
        resize="crop",
        resize_to=round(side / 0.875),  # 256 for 224: the usual evaluation transform
    )
    config = ViTConfig(architecture.width, architecture.depth, architecture.heads, architecture.mlp_dim, classes)
    return config, preprocessing


class PatchEmbedding(nn.Module):
    """Equation 1, `x_p E`: normalise and project flattened patches with one MatMul."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(preprocessing.patch_dim, width)
        # Values of a patch run (row, column, channel), so the channel means repeat P*P times. Not learned, not stored.
        repeat = preprocessing.patch_dim // preprocessing.channels
        self.register_buffer("mean", torch.tensor(preprocessing.mean * repeat), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std * repeat), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """uint8 `[B, N, P*P*C]` to `[B, N, D]`."""
        pixels = patches.to(self.mean.dtype) / 255
        projected: Tensor = self.project((pixels - self.mean) / self.std)
        return projected


Attend = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


def masked_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """Attention that ignores padding.

    Args:
        query: `[B, T, D]`.
        key: `[B, T, D]`.
        value: `[B, T, D]`.
        lengths: int64 `[B]`, valid tokens of each image, counted from the left.
        heads: H.

    Returns:
        `[B, T, D]`; rows of padding are finite and meaningless.
    """
    batch, tokens, width = query.shape
    query, key, value = (x.view(batch, tokens, heads, width // heads).transpose(1, 2) for x in (query, key, value))
    valid = torch.arange(tokens, device=query.device) < lengths[:, None]  # [B, T]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None, :])  # [B, H, T, D/H]
    return mixed.transpose(1, 2).reshape(batch, tokens, width)


def matmul_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """`masked_attention` written out in MatMul and Softmax, with the same arguments and result.

    For runtimes without an attention operator, and for training on a CPU: there the backward pass of the fused kernel
    took 57 % of a step in bfloat16, and this form made the whole step 2.6 times faster (Pico/4, batch 256).
    """
    batch, tokens, width = query.shape
    query, key, value = (x.view(batch, tokens, heads, width // heads).transpose(1, 2) for x in (query, key, value))
    scores = (query * (width // heads) ** -0.5) @ key.transpose(-1, -2)  # [B, H, T, T]
    valid = torch.arange(tokens, device=query.device) < lengths[:, None]  # [B, T]
    weights = scores.masked_fill(~valid[:, None, None, :], float("-inf")).softmax(-1)
    mixed: Tensor = weights.to(value.dtype) @ value  # [B, H, T, D/H]
    return mixed.transpose(1, 2).reshape(batch, tokens, width)


class Attention(nn.Module):
    """Multi-head self-attention (appendix A)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.project = nn.Linear(config.width, config.width)
        # Export and training on a CPU set another function here.
        self.attend: Attend = masked_attention

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]` to `[B, T, D]`."""
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)
        projected: Tensor = self.project(self.attend(query, key, value, lengths, self.heads))
        return projected


class Block(nn.Module):
    """Equations 2 and 3: pre-norm attention and MLP, each with a residual."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.mlp_dim), nn.GELU(), nn.Linear(config.mlp_dim, config.width)
        )

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]` to `[B, T, D]`."""
        tokens = tokens + self.attention(self.norm1(tokens), lengths)
        attended: Tensor = tokens + self.mlp(self.norm2(tokens))
        return attended


class VisionTransformer(nn.Module):
    """ViT over padded batches of patch sequences."""

    def __init__(self, config: ViTConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = preprocessing
        self.embedding = PatchEmbedding(preprocessing, config.width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.class_position = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = PositionEmbedding(preprocessing.native_grid, config.width, config.position_interpolation)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.head = nn.Linear(config.width, config.classes)
        self.apply(_initialise)
        nn.init.normal_(self.class_token, std=0.02)

    def attend_with(self, attend: Attend) -> None:
        """Compute attention by another function of the same arguments and result."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.attend = attend

    def forward(self, patches: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Classify a batch of images of any sizes.

        Args:
            patches: uint8 `[B, N, P*P*C]`, each image's patches row by row, padded on the right with anything.
            grid: int64 `[B, 2]`, rows and columns of each image; `rows * columns <= N`.

        Returns:
            logits `[B, K]` and embedding `[B, D]`, the class token after the final norm.
        """
        tokens = self.embedding(patches) + self.positions(grid, patches.shape[1])  # [B, N, D]
        class_token = (self.class_token + self.class_position).expand(patches.shape[0], -1, -1)
        tokens = torch.cat([class_token, tokens], dim=1)  # [B, T, D]
        lengths = grid[:, 0] * grid[:, 1] + 1
        for block in self.blocks:
            tokens = block(tokens, lengths)
        embedding = self.norm(tokens[:, 0])  # equation 4
        return self.head(embedding), embedding


def _initialise(module: nn.Module) -> None:
    """As the reference implementation: Xavier everywhere; a fixed 0.02 is too small for narrow models."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
