"""The architecture of a Vision Transformer as one flat record. Standard library only.

The defaults are the paper's ("An Image is Worth 16x16 Words", Dosovitskiy et al. 2021); every other value is there
because a published family of checkpoints needs it, and names that family.
"""

from dataclasses import dataclass
from typing import Literal

from model.manifest import PositionInterpolation

Stem = Literal["patches", "resnetv2", "resnetd", "patchwise"]
Norm = Literal["layer", "rms"]
BlockLayout = Literal["sequential", "post-norm", "parallel"]
Activation = Literal["gelu", "gelu-tanh", "quick-gelu", "silu"]
AttentionKind = Literal["softmax", "differential"]
FinalNorm = Literal["pooled", "tokens", "none"]
Pooling = Literal["token", "average", "token+average", "attention"]
Positions = Literal["1d", "2d", "relative", "none"]


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """The architecture. What a patch is (its size, the native grid, the normalisation) is in `Preprocessing`.

    Every linear layer has a bias: a checkpoint without one is read with zeros. The class token and the registers have
    positions of their own, which are zeros where a checkpoint gives them none.
    """

    width: int  # D, the size of a token
    depth: int  # number of blocks
    heads: int  # attention heads; each sees D / heads values
    mlp_dim: int  # hidden size of the MLP, 4*D in the paper
    classes: int = 1000  # K, size of the head; 0 for a feature extractor, which has none
    norm_epsilon: float = 1e-6  # of every normalisation of tokens; the value of the reference implementation
    position_interpolation: PositionInterpolation = "bicubic"

    # --- from pixels to tokens
    stem: Stem = "patches"  # what embeds the patches: one linear layer, or convolutions before it (hybrid)
    stem_layers: str = ""  # residual units of each stage of a ResNet stem, such as "3-4-9" for R50 with stride 16
    stem_epsilon: float = 1e-5  # of the stem's group norms: 1e-5 in timm, 1e-6 in the original
    stem_standardised: bool = False  # kernels are standardised in each forward pass: for training; converters fold it
    # Of patches (appendix D.4): a table with an entry a patch; tables of rows and of columns, half the width each;
    # offsets between patches inside attention; or none.
    positions: Positions = "1d"
    class_token: bool = True  # False: SigLIP, AIMv2, models trained for average pooling
    registers: int = 0  # further learned tokens before the patches (DINOv2), the distillation token among them (DeiT)
    embedding_norm: bool = False  # of embedded patches, before positions are added (AIMv2)
    pre_norm: bool = False  # of all tokens, before the first block (CLIP)

    # --- blocks
    block: BlockLayout = "sequential"  # post-norm: norms after the branches; parallel: attention beside MLP (ViT-22B)
    branches: int = 1  # attentions side by side, then as many MLPs ("Three things everyone should know about ViTs")
    norm: Norm = "layer"
    layer_scale: bool = False  # a learned factor for each channel of a branch (CaiT, DeiT III, DINOv2)
    attention: AttentionKind = "softmax"  # or the difference of two softmax maps (Differential Transformer)
    qk_norm: bool = False  # norms of queries and keys, by head (ViT-22B)
    inner_norm: bool = False  # norms before the last linear layer of attention and MLP (BEiT-3)
    activation: Activation = "gelu"
    gated_mlp: bool = False  # act(gate) * value: with SiLU it is SwiGLU (DINOv2 giant, AIMv2)

    # --- from tokens to logits
    final_norm: FinalNorm = "pooled"  # tokens: before pooling; for one pooled token both are the same
    pooling: Pooling = "token"  # attention: one learned query ("MAP", SigLIP); token+average: both, side by side
    pool_prefix: bool = False  # pool over class token and registers too, not over patches alone
    pre_logits: int = 0  # size of a tanh layer before the head (the original ImageNet-21k models); 0 for none
    distilled: bool = False  # the first register has a head too, and the logits are the mean of both (DeiT)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, with a ValueError."""
        if min(self.width, self.depth, self.heads, self.mlp_dim) < 1 or self.width % self.heads:
            raise ValueError(f"width {self.width} with {self.heads} heads, MLP of {self.mlp_dim}, {self.depth} blocks")
        if "token" in self.pooling and not self.class_token:
            raise ValueError(f"pooling {self.pooling!r} needs a class token")
        if self.pooling == "token+average" and self.final_norm == "pooled":
            raise ValueError("pooling 'token+average' needs the final norm before it, or none")
        if self.distilled and not (self.class_token and self.registers):
            raise ValueError("a distilled model needs a class token and a register")
        if self.positions == "2d" and self.width % 2:
            raise ValueError(f"2d positions are halves of rows and of columns: the width {self.width} must be even")
        if self.positions == "relative" and self.attention != "softmax":
            raise ValueError(f"relative positions need softmax attention, not {self.attention}")

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return int(self.class_token) + self.registers

    @property
    def mixed_grids(self) -> bool:
        """Whether images of different grids fit in one batch: not with a ResNet stem, which sees beyond a patch."""
        return self.stem in {"patches", "patchwise"}


def stem_stride(layers: str) -> int:
    """Pixels a value of the feature map of a ResNet stem: 4 behind the root, twice that for each stage after the first.

    Args:
        layers: residual units of each stage, as in `ViTConfig.stem_layers`.
    """
    return 4 << layers.count("-")
