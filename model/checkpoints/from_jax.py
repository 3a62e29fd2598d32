"""The original checkpoints of google-research/vision_transformer, `.npz` files: ViT and hybrids.

Everything is read from keys and shapes. Two facts of the original differ from its copies in other libraries: its GELU
is the tanh approximation (flax's default), and its convolutions divide by standard deviation + 1e-5.
Axes: `D` width, `H` heads, `O` outputs and `I` inputs of a convolution, `k` side of its kernel.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model.architecture import ViTConfig
from model.checkpoints.conversion import build, converter, count_of, join_qkv, matrix_of, rename, required, square
from model.checkpoints.loading import CheckpointError
from model.vit import VisionTransformer

_PREFIX = "opt/target/"  # in checkpoints saved with their optimiser
_TABLE = "Transformer/posembed_input/pos_embedding"
_BLOCK = r"Transformer/encoderblock_(\d+)/"
_UNIT = r"block(\d+)/unit(\d+)/"
_PARTS = {"conv1": "reduce", "conv2": "convolve", "conv3": "expand", "conv_proj": "shortcut"}
# The numbers behind names are those of old flax; files written with linen count each kind from 0.
_NAMES = (
    ("cls", "class_token"),
    (r"embedding/(\w+)", r"embedding.project.\1"),
    (_BLOCK + r"LayerNorm_0/(\w+)", r"blocks.\1.norm1.\2"),
    (_BLOCK + r"LayerNorm_[12]/(\w+)", r"blocks.\1.norm2.\2"),
    (_BLOCK + r"MultiHeadDotProductAttention_[01]/(query|key|value)/(\w+)", r"blocks.\1.attention.\2.\3"),
    (_BLOCK + r"MultiHeadDotProductAttention_[01]/out/(\w+)", r"blocks.\1.attention.project.\2"),
    (_BLOCK + r"MlpBlock_[03]/Dense_0/(\w+)", r"blocks.\1.mlp.0.\2"),
    (_BLOCK + r"MlpBlock_[03]/Dense_1/(\w+)", r"blocks.\1.mlp.2.\2"),
    (r"Transformer/encoder_norm/(\w+)", r"norm.\1"),
    (r"(pre_logits|head)/(\w+)", r"\1.\2"),
)


@converter
def convert(weights: Mapping[str, Tensor], config: Mapping[str, Any] | None = None, **pixels: Any) -> VisionTransformer:
    """A model of the original code as ours; one without a head becomes a feature extractor.

    Args:
        weights: by the names of the `.npz` file.
        config: not needed.
        pixels: further fields of `Preprocessing`.

    Raises:
        CheckpointError: naming what is not supported, or what does not fit.
    """
    arrays = {name.removeprefix(_PREFIX): tensor.float() for name, tensor in weights.items()}
    if "params/img/embedding/kernel" in arrays or "params/embedding/kernel" in arrays or "pos_embedding" in arrays:
        raise CheckpointError("checkpoints of big_vision are not supported, only those of vision_transformer are")
    table = required(arrays, _TABLE)
    query = required(arrays, next((name for name in arrays if name.endswith("/query/kernel")), "an attention"))
    stages = [count_of(arrays, rf"block{stage}/unit(\d+)/") - 1 for stage in range(1, 5)]  # units count from 1
    stem_layers = "-".join(str(depth) for depth in stages if depth > 0)
    hybrid = "conv_root/kernel" in arrays
    kernel = required(arrays, "embedding/kernel")  # [k, k, I, D]
    stride = 4 * 2 ** max(len(stem_layers.split("-")) - 1, 0) if hybrid else 1
    token = "cls" in arrays
    ours = _ours({name: array for name, array in arrays.items() if name != _TABLE})
    if token:
        ours["class_position"] = table[:, :1]
    ours["positions.table"] = table[0, int(token) :]
    architecture = ViTConfig(
        width=kernel.shape[-1],
        depth=count_of(ours, r"blocks\.(\d+)\."),
        heads=query.shape[1],
        mlp_dim=len(required(ours, "blocks.0.mlp.0.weight")),
        classes=len(ours["head.weight"]) if "head.weight" in ours else 0,
        position_interpolation="bilinear-align-corners",
        stem="resnetv2" if hybrid else "patches",
        stem_layers=stem_layers,
        stem_epsilon=1e-6,
        class_token=token,
        activation="gelu-tanh",
        final_norm="pooled" if token else "tokens",
        pooling="token" if token else "average",
        pre_logits=len(ours["pre_logits.weight"]) if "pre_logits.weight" in ours else 0,
    )
    return build(architecture, ours, kernel.shape[0] * stride, square(table.shape[1] - int(token)), pixels)


def _ours(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All but positions, in our names and axes."""
    named = rename({_stem_name(name): array for name, array in arrays.items()}, _NAMES)
    ours = {}
    for name, array in named.items():
        key = name.removesuffix(".kernel").removesuffix(".scale")
        ours[name if key == name else f"{key}.weight"] = _turned(name, array)
    join_qkv(ours)
    return ours


def _stem_name(name: str) -> str:
    """Names of the ResNet, where a convolution and its norm lie side by side."""
    if match := re.fullmatch(r"(conv|gn)_root/(\w+)", name):
        return f"embedding.stem.root.0.{_kind(match[1])}.{match[2]}"
    if match := re.fullmatch(_UNIT + r"(conv|gn)(\d|_proj)/(\w+)", name):
        stage, unit, kind, part, value = match.groups()
        return f"embedding.stem.stages.{int(stage) - 1}.{int(unit) - 1}.{_PARTS[f'conv{part}']}.{_kind(kind)}.{value}"
    return name


def _kind(kind: str) -> str:
    return "convolve" if kind == "conv" else "norm"


def _turned(name: str, array: Tensor) -> Tensor:
    """Inputs first in JAX, outputs first in PyTorch; heads and their values are one axis here."""
    if name.startswith("embedding.stem."):
        return _standardised(array.permute(3, 2, 0, 1)) if name.endswith(".kernel") else array.flatten()
    if name == "embedding.project.kernel":
        return matrix_of(array.permute(3, 2, 0, 1))
    if re.search(r"attention\.(query|key|value)\.", name):
        return array.flatten(1).t() if name.endswith(".kernel") else array.flatten()
    if name.endswith("attention.project.kernel"):
        return array.flatten(0, 1).t()
    return array.t() if name.endswith(".kernel") else array


def _standardised(kernel: Tensor) -> Tensor:
    """Weight standardisation of `[O, I, k, k]` as the original does it."""
    flat = kernel.double().flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return (flat / (flat.std(1, correction=0, keepdim=True) + 1e-5)).view_as(kernel).float()
