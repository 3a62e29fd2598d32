"""Checkpoints of torchvision's Vision Transformers (vit_b_16, vit_b_32, vit_l_16, vit_l_32, vit_h_14)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model.architecture import ViTConfig
from model.checkpoints.conversion import build, converter, count_of, matrix_of, rename, required, square
from model.checkpoints.loading import CheckpointError
from model.vit import VisionTransformer

_HEADS = {"vit_b_16": 12, "vit_b_32": 12, "vit_l_16": 16, "vit_l_32": 16, "vit_h_14": 16}
_LAYER = r"encoder\.layers\.encoder_layer_(\d+)\."
_NAMES = (
    (r"conv_proj\.(weight|bias)", r"embedding.project.\1"),
    (_LAYER + r"ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (_LAYER + r"self_attention\.in_proj_(\w+)", r"blocks.\1.attention.qkv.\2"),
    (_LAYER + r"self_attention\.out_proj\.(\w+)", r"blocks.\1.attention.project.\2"),
    (_LAYER + r"mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.0.\2"),  # linear_1 in files before torchvision 0.14
    (_LAYER + r"mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.2.\2"),
    (r"encoder\.ln\.(\w+)", r"norm.\1"),
    (r"heads\.(head|pre_logits)\.(\w+)", r"\1.\2"),
)


@converter
def convert(weights: Mapping[str, Tensor], config: Mapping[str, Any], **pixels: Any) -> VisionTransformer:
    """A model of torchvision as ours.

    Args:
        weights: as its `.pth` file names them.
        config: `architecture`, such as `vit_b_16`.
        pixels: further fields of `Preprocessing`.

    Raises:
        CheckpointError: naming what is not supported, or what does not fit.
    """
    name = config.get("architecture")
    if name not in _HEADS:
        raise CheckpointError(f"torchvision's architecture {name!r} is not supported: {', '.join(_HEADS)} are")
    if any(key.startswith("conv_proj.conv_bn_relu") for key in weights):
        raise CheckpointError("the convolutional stem of torchvision (conv_stem_configs) is not supported")
    kernel, table = required(weights, "conv_proj.weight"), required(weights, "encoder.pos_embedding")
    hidden = required(weights, "encoder.layers.encoder_layer_0.ln_1.weight")
    ours = rename({key: tensor for key, tensor in weights.items() if key != "encoder.pos_embedding"}, _NAMES)
    ours["embedding.project.weight"] = matrix_of(kernel)
    ours |= {"class_position": table[:, :1], "positions.table": table[0, 1:]}
    pre_logits = ours.get("pre_logits.weight")
    architecture = ViTConfig(
        width=len(hidden),
        depth=count_of(weights, _LAYER),
        heads=_HEADS[name],
        mlp_dim=len(required(ours, "blocks.0.mlp.0.weight")),
        classes=len(ours["head.weight"]) if "head.weight" in ours else 0,
        position_interpolation="bicubic-align-corners",
        pre_logits=0 if pre_logits is None else len(pre_logits),
    )
    return build(architecture, ours, kernel.shape[-1], square(table.shape[1] - 1), pixels)
