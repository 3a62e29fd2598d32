"""Checkpoints of Hugging Face transformers: ViT, DeiT, DINOv2 with and without registers, SigLIP.

Names are those of the files on the hub, which `save_pretrained` still writes; in memory transformers 5 has others.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model.architecture import Activation, Pooling, ViTConfig
from model.checkpoints.conversion import (
    add_zero_biases,
    build,
    converter,
    count_of,
    join_qkv,
    matrix_of,
    rename,
    required,
    square,
    take,
)
from model.checkpoints.loading import CheckpointError
from model.manifest import PositionInterpolation
from model.vit import VisionTransformer

_INTERPOLATION: dict[str, PositionInterpolation] = {
    "vit": "bicubic",
    "deit": "bicubic",
    "dinov2": "bicubic",
    "dinov2_with_registers": "bicubic-antialias",
    "siglip": "bicubic",
    "siglip_vision_model": "bicubic",
}
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_new": "gelu-tanh",
    "gelu_fast": "gelu-tanh",
    "quick_gelu": "quick-gelu",
    "silu": "silu",
    "swish": "silu",
}
_BASE = re.compile(r"(vit|deit|dinov2|dinov2_with_registers|vision_model)\.")
# Parts that no image classifier reads: masks of pre-training, a pooler beside the class token, the text of SigLIP.
_UNUSED = re.compile(r"embeddings\.mask_token|pooler\.dense\.\w+|text_model\..*|logit_(scale|bias)|.*\.position_ids")
_LAYER = r"encoder\.layers?\.(\d+)\."
_NAMES = (
    (r"embeddings\.cls_token", "class_token"),
    (r"embeddings\.(?:distillation_token|register_tokens)", "registers"),
    (r"embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.(\w+)", r"embedding.project.\1"),
    (r"embeddings\.(?:position_embeddings|position_embedding\.weight)", "positions"),
    (_LAYER + r"(?:layernorm_before|norm1|layer_norm1)\.(\w+)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"(?:layernorm_after|norm2|layer_norm2)\.(\w+)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"attention\.attention\.(query|key|value)\.(\w+)", r"blocks.\1.attention.\2.\3"),
    (_LAYER + r"self_attn\.q_proj\.(\w+)", r"blocks.\1.attention.query.\2"),
    (_LAYER + r"self_attn\.k_proj\.(\w+)", r"blocks.\1.attention.key.\2"),
    (_LAYER + r"self_attn\.v_proj\.(\w+)", r"blocks.\1.attention.value.\2"),
    (_LAYER + r"(?:attention\.output\.dense|self_attn\.out_proj)\.(\w+)", r"blocks.\1.attention.project.\2"),
    (_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.scale\2.factor"),
    (_LAYER + r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(\w+)", r"blocks.\1.mlp.0.\2"),
    (_LAYER + r"(?:output\.dense|mlp\.fc2|mlp\.weights_out)\.(\w+)", r"blocks.\1.mlp.2.\2"),
    (r"(?:layernorm|post_layernorm)\.(\w+)", r"norm.\1"),
    (r"(?:classifier|cls_classifier)\.(\w+)", r"head.\1"),
    (r"distillation_classifier\.(\w+)", r"distillation_head.\1"),
    # SigLIP's attention pooling
    (r"head\.attention\.out_proj\.(\w+)", r"pool.attention.project.\1"),
    (r"head\.layernorm\.(\w+)", r"pool.attention.norm.\1"),
    (r"head\.mlp\.fc1\.(\w+)", r"pool.attention.mlp.0.\1"),
    (r"head\.mlp\.fc2\.(\w+)", r"pool.attention.mlp.2.\1"),
    (r"head\.(attention\.in_proj_\w+|probe)", r"pooling_head.\1"),
)


@converter
def convert(weights: Mapping[str, Tensor], config: Mapping[str, Any], **pixels: Any) -> VisionTransformer:
    """A model of transformers as ours; one without a classifier becomes a feature extractor.

    Args:
        weights: in the names of its file.
        config: its `config.json`.
        pixels: further fields of `Preprocessing`.

    Raises:
        CheckpointError: naming what is not supported, or what does not fit.
    """
    kind = config.get("model_type")
    if kind not in _INTERPOLATION:
        raise CheckpointError(f"transformers' model_type {kind!r} is not supported: {', '.join(_INTERPOLATION)} are")
    vision = config.get("vision_config", {}) if kind == "siglip" else config
    ours = rename(_used(weights), _NAMES)
    join_qkv(ours)
    add_zero_biases(ours, ["attention.qkv"])
    pooling = _pooling(str(kind), ours)
    _place_pooling(ours, pooling)
    kernel = required(ours, "embedding.project.weight")
    ours["embedding.project.weight"] = matrix_of(kernel)
    registers = ours["registers"].shape[1] if "registers" in ours else 0
    grid = _place_positions(ours, registers, covers_registers=kind == "deit")
    hidden = required(ours, "blocks.0.mlp.2.weight").shape[1]
    gated = len(required(ours, "blocks.0.mlp.0.weight")) == 2 * hidden
    architecture = ViTConfig(
        width=len(kernel),
        depth=count_of(ours, r"blocks\.(\d+)\."),
        heads=_number(vision, "num_attention_heads", 12),
        mlp_dim=hidden,
        classes=len(ours["head.weight"]) if "head.weight" in ours else 0,
        norm_epsilon=float(
            vision.get("layer_norm_eps", 1e-6 if "siglip" in str(kind) or "dino" in str(kind) else 1e-12)
        ),
        position_interpolation=_INTERPOLATION[str(kind)],
        class_token="class_token" in ours,
        registers=registers,
        layer_scale="blocks.0.scale1.factor" in ours,
        activation="silu" if gated else _activation(vision, str(kind)),
        gated_mlp=gated,
        final_norm="pooled" if pooling == "token" else "tokens",
        pooling=pooling,
        distilled="distillation_head.weight" in ours,
    )
    return build(architecture, ours, kernel.shape[-1], grid, pixels)


def _used(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that count, without the name of the model that holds them."""
    named = {_BASE.sub("", name, count=1) if _BASE.match(name) else name: tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in named.items() if not _UNUSED.fullmatch(name)}


def _pooling(kind: str, ours: Mapping[str, Tensor]) -> Pooling:
    """What the classifier reads; without one, what the model itself calls its pooled output."""
    if "siglip" in kind:
        return "average" if "head.weight" in ours else "attention"
    return "token+average" if "dinov2" in kind and "head.weight" in ours else "token"


def _place_pooling(ours: dict[str, Tensor], pooling: Pooling) -> None:
    """SigLIP's pooling head in our terms, in place; dropped where the classifier reads the average instead."""
    if pooling != "attention":
        for name in [name for name in ours if name.startswith(("pool.", "pooling_head."))]:
            del ours[name]
        return
    parts = ("attention.in_proj_weight", "attention.in_proj_bias", "probe")
    matrix, bias, probe = (take(ours, f"pooling_head.{part}") for part in parts)
    width = matrix.shape[1]
    # The query is learned and projected always in the same way: it is one vector.
    ours["pool.attention.query"] = probe @ matrix[:width].t() + bias[:width]
    ours |= {"pool.attention.key_value.weight": matrix[width:], "pool.attention.key_value.bias": bias[width:]}


def _place_positions(ours: dict[str, Tensor], registers: int, *, covers_registers: bool) -> tuple[int, int]:
    """Split the table into that of patches and those of the tokens before them, in place; the grid of the former."""
    table = take(ours, "positions")
    table = table if table.ndim == 3 else table[None]  # [1, tokens, D]
    prefix = ("class_token" in ours) + (registers if covers_registers else 0)
    if "class_token" in ours:
        ours["class_position"] = table[:, :1]
    if covers_registers and registers:
        ours["registers"] = ours["registers"] + table[:, 1:prefix]
    ours["positions.table"] = table[0, prefix:]
    return square(table.shape[1] - prefix)


def _activation(config: Mapping[str, Any], kind: str) -> Activation:
    name = config.get("hidden_act", "gelu_pytorch_tanh" if "siglip" in kind else "gelu")
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"transformers' hidden_act {name!r} is not supported: {', '.join(_ACTIVATIONS)} are")
    return _ACTIVATIONS[name]


def _number(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name, default)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{name} of config.json is {value!r}, not a positive integer")
    return value
