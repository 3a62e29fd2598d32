"""Checkpoints of timm's modules vision_transformer, deit and vision_transformer_hybrid (release 1.0.31).

What keys and shapes say is read from them; the rest (head width, epsilon, activation) is in the architecture's name.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.architecture import Activation, FinalNorm, Pooling, Stem, ViTConfig
from model.checkpoints.conversion import (
    add_zero_biases,
    build,
    converter,
    count_of,
    matrix_of,
    rename,
    required,
    square,
    take,
)
from model.checkpoints.loading import CheckpointError
from model.checkpoints.stems import timm_stem
from model.checkpoints.timm_blocks import to_blocks
from model.vit import VisionTransformer

# Every part of a name that is understood. timm has many more, in other modules, for models of another kind (rope,
# relpos, naflex, ...): one unknown part and the checkpoint is refused.
_WORDS = re.compile(
    r"vit|deit3?|eva|flexivit|aimv2|beit3|test|vit[234]?"
    r"|tiny|xsmall|small|d?p?wee|d?little|medium|mediumd|betwixt|base|large|huge|giant|giantopt|gigantic|1b|3b"
    r"|so150m2?|so400m|intern300m|patch\d+|\d{3}|gap|map|clip|quickgelu|siglip|dinov2|tipsv2|radio|v3|v4|reg\d+"
    r"|plus|rpn|36x1|18x2|xp|miil|distilled|r|r26|r50|s16|s32|p8|resnet26d|resnet50d|mci"
)
# The first pattern found in the name decides.
_HEAD_WIDTH = (
    ("aimv2", 128),
    ("gigantic", 104),
    ("giantopt", 96),
    ("giant_.*(dinov2|tipsv2|radio)", 64),
    ("giant", 88),
    ("huge", 80),
    ("so400m", 72),
    ("vit_base_patch16_gap", 48),
    ("vit_small_resnet", 96),
    ("test_vit", 32),
    ("", 64),
)
_EPSILON = (("clip|aimv2|beit3", 1e-5), ("", 1e-6))
_ACTIVATION: tuple[tuple[str, Activation], ...] = (
    ("quickgelu", "quick-gelu"),
    ("patch32_siglip|large_patch16_siglip(_gap)?_512|so400m_patch16_siglip|giantopt", "gelu-tanh"),
    ("", "gelu"),
)
_ACT_LAYERS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu-tanh",
    "quick_gelu": "quick-gelu",
    "silu": "silu",
    "swish": "silu",
}
# Arguments that show in the weights, or change nothing once a model is trained.
_HARMLESS = re.compile(
    r"img_size|num_classes|in_chans|patch_size|embed_dim|depth|mlp_ratio|.*_rate|init_values|weight_init|fix_init"
    r"|qkv_bias|qk_norm|proj_bias|class_token|no_embed_class|reg_tokens|pre_norm|final_norm|fc_norm|dynamic_img_\w+"
    r"|scale_attn_norm|scale_mlp_norm"
)
_READ = {"global_pool", "num_heads", "act_layer", "pool_include_prefix"}
_NAMES = (
    ("cls_token", "class_token"),
    ("(reg|dist)_token", "registers"),
    (r"patch_embed\.norm\.(\w+)", r"embedding_norm.\1"),
    (r"patch_embed\.proj\.(weight|bias)", r"embedding.project.\1"),
    (r"norm_pre\.(\w+)", r"pre_norm.\1"),
    (r"(fc_)?norm\.(\w+)", r"norm.\2"),
    (r"head_dist\.(\w+)", r"distillation_head.\1"),
    (r"attn_pool\.kv\.(\w+)", r"pool.attention.key_value.\1"),
    (r"attn_pool\.proj\.(\w+)", r"pool.attention.project.\1"),
    (r"attn_pool\.norm\.(\w+)", r"pool.attention.norm.\1"),
    (r"attn_pool\.mlp\.fc1\.(\w+)", r"pool.attention.mlp.0.\1"),
    (r"attn_pool\.mlp\.fc2\.(\w+)", r"pool.attention.mlp.2.\1"),
)


@converter
def convert(weights: Mapping[str, Tensor], config: Mapping[str, Any], **pixels: Any) -> VisionTransformer:
    """A model of timm as ours.

    Args:
        weights: as `state_dict()` names them.
        config: as timm's `config.json` has it: architecture, and if they differ from the architecture's own,
            global_pool and model_args.
        pixels: further fields of `Preprocessing`.

    Raises:
        CheckpointError: naming what is not supported, or what does not fit.
    """
    name, arguments = _name(config), _arguments(config)
    tensors = {key: tensor.float() for key, tensor in weights.items()}
    stem, stem_layers, patch_size = _stem(tensors)
    blocks, found = to_blocks(tensors)
    prefix = ("cls_token" in tensors) + ("dist_token" in tensors) + _registers(tensors)
    grid, positions, prefix_positions = _positions(required(tensors, "pos_embed"), prefix, config, patch_size)
    width = positions.shape[1]
    architecture = ViTConfig(
        width=width,
        depth=found.depth,
        heads=_heads(width, found.head_width or _first(_HEAD_WIDTH, name), arguments),
        mlp_dim=found.mlp_dim,
        classes=len(tensors["head.weight"]) if "head.weight" in tensors else 0,
        norm_epsilon=_first(_EPSILON, name),
        position_interpolation="bicubic-antialias",
        stem=stem,
        stem_layers=stem_layers,
        class_token="cls_token" in tensors,
        registers=prefix - ("cls_token" in tensors),
        embedding_norm="patch_embed.norm.weight" in tensors,
        pre_norm="norm_pre.weight" in tensors,
        block="post-norm" if "rpn" in name else found.layout,
        branches=found.branches,
        norm="layer" if found.norm_bias else "rms",
        layer_scale=found.layer_scale,
        attention="differential" if found.differential else "softmax",
        qk_norm=found.head_width is not None,
        inner_norm=found.inner_norm,
        activation="silu" if found.gated else _activation(name, arguments),
        gated_mlp=found.gated,
        final_norm=_final_norm(tensors),
        pooling=_pooling(tensors, arguments),
        pool_prefix=bool(arguments.get("pool_include_prefix", "vit3" in name)),
        distilled="dist_token" in tensors,
    )
    rest = {
        key: tensor for key, tensor in tensors.items() if key not in {"pos_embed"} and not key.startswith("blocks.")
    }
    ours = _embedding(rest, stem) | blocks | {"positions.table": positions}
    _place_prefix(ours, prefix_positions)
    if architecture.pre_norm:
        add_zero_biases(ours, ["embedding.project"])  # CLIP has none
    return build(architecture, ours, patch_size, grid, pixels)


def _name(config: Mapping[str, Any]) -> str:
    name = str(config.get("architecture", "")).split(".")[0]
    if unknown := [word for word in name.split("_") if not _WORDS.fullmatch(word)]:
        raise CheckpointError(
            f"timm's architecture {name!r} is not supported: {', '.join(unknown)!r} is not known here"
        )
    return name


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the model's constructor that its checkpoint sets."""
    given = {key: config[key] for key in ("global_pool",) if config.get(key) is not None}
    arguments = given | dict(config.get("model_args") or {})
    if unknown := [key for key in arguments if key not in _READ and not _HARMLESS.fullmatch(key)]:
        raise CheckpointError(f"timm's model_args {', '.join(unknown)} are not supported")
    return arguments


def _first(table: tuple[tuple[str, Any], ...], name: str) -> Any:
    return next(value for pattern, value in table if re.search(pattern, name))


def _heads(width: int, head_width: int, arguments: Mapping[str, Any]) -> int:
    if "num_heads" in arguments:
        return int(arguments["num_heads"])
    if "embed_dim" in arguments or width % head_width:
        raise CheckpointError(
            f"nothing says how many attention heads a width of {width} has: model_args needs num_heads"
        )
    return width // head_width


def _activation(name: str, arguments: Mapping[str, Any]) -> Activation:
    chosen = arguments.get("act_layer")
    if chosen is None:
        activation: Activation = _first(_ACTIVATION, name)
        return activation
    if chosen not in _ACT_LAYERS:
        raise CheckpointError(f"timm's act_layer {chosen!r} is not supported: {', '.join(_ACT_LAYERS)} are")
    return _ACT_LAYERS[chosen]


def _registers(tensors: Mapping[str, Tensor]) -> int:
    return tensors["reg_token"].shape[1] if "reg_token" in tensors else 0


def _stem(tensors: Mapping[str, Tensor]) -> tuple[Stem, str, int]:
    """Kind, stages and patch side in pixels."""
    prefix = "patch_embed.backbone."
    side = tensors["patch_embed.proj.weight"].shape[-1] if "patch_embed.proj.weight" in tensors else 1
    if not any(name.startswith(prefix) for name in tensors):
        required(tensors, "patch_embed.proj.weight")
        return "patches", "", side
    if f"{prefix}0.conv.weight" in tensors:
        return "patchwise", "", 16
    kind: Stem = "resnetd" if f"{prefix}conv1.0.weight" in tensors else "resnetv2"
    stage = r"layer{}\.(\d+)" if kind == "resnetd" else r"stages\.{}\.blocks\.(\d+)"
    first = 1 if kind == "resnetd" else 0
    depths = [count_of(tensors, re.escape(prefix) + stage.format(index)) for index in range(first, first + 4)]
    depths = [depth for depth in depths if depth]
    return kind, "-".join(map(str, depths)), 4 * 2 ** max(len(depths) - 1, 0) * side


def _positions(
    table: Tensor, prefix: int, config: Mapping[str, Any], patch_size: int
) -> tuple[tuple[int, int], Tensor, Tensor]:
    """Grid, positions of patches `[N, D]` and of the tokens before them, `[prefix or 0, D]`."""
    size = (config.get("pretrained_cfg") or {}).get("input_size") or (3, 0, 0)
    rows, columns = size[1] // patch_size, size[2] // patch_size
    length = table.shape[1]
    if rows * columns == 0 or length - rows * columns not in {0, prefix}:
        covered = prefix if int((length - prefix) ** 0.5) ** 2 == length - prefix else 0
        rows, columns = square(length - covered)
    covered = length - rows * columns
    return (rows, columns), table[0, covered:], table[0, :covered]


def _final_norm(tensors: Mapping[str, Tensor]) -> FinalNorm:
    if "fc_norm.weight" in tensors:
        return "pooled"
    return "tokens" if "norm.weight" in tensors else "none"


def _pooling(tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> Pooling:
    """As the checkpoint says, else as its weights show."""
    shown = "map" if "attn_pool.latent" in tensors else "token"
    if shown == "token" and ("fc_norm.weight" in tensors or "cls_token" not in tensors):
        shown = "avg"
    kinds: dict[str, Pooling] = {"token": "token", "avg": "average", "map": "attention"}
    chosen = arguments.get("global_pool", shown)
    if chosen not in kinds:
        raise CheckpointError(f"timm's global_pool {chosen!r} is not supported: {', '.join(kinds)} are")
    return kinds[chosen]


def _embedding(tensors: dict[str, Tensor], stem: Stem) -> dict[str, Tensor]:
    """Everything outside the blocks, in our names."""
    if "attn_pool.latent" in tensors:
        # The query is learned and projected always in the same way: it is one vector.
        latent, matrix, bias = (take(tensors, f"attn_pool.{part}") for part in ("latent", "q.weight", "q.bias"))
        if bias.shape != matrix.shape[:1]:
            raise CheckpointError(f"attn_pool.q has a weight of {list(matrix.shape)} and a bias of {list(bias.shape)}")
        tensors["pool.attention.query"] = latent @ matrix.t() + bias
    ours = rename(timm_stem(tensors, stem), _NAMES)
    if "embedding.project.weight" in ours:
        ours["embedding.project.weight"] = matrix_of(ours["embedding.project.weight"])
    return ours


def _place_prefix(ours: dict[str, Tensor], positions: Tensor) -> None:
    """Give class token and registers their positions, in place; zeros if the table does not cover them."""
    if "class_token" in ours:
        ours["class_position"] = torch.zeros_like(ours["class_token"])
        if len(positions):
            ours["class_position"], positions = positions[None, :1], positions[1:]
    if "registers" in ours and len(positions):
        ours["registers"] = ours["registers"] + positions
