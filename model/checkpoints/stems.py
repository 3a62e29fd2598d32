"""Weights of convolutional stems: what is fixed after training is folded into the kernels.

Axes: `O` outputs of a convolution, `I` inputs, `k` side of its kernel.
"""

import re

import torch
from torch import Tensor

from model.architecture import Stem
from model.checkpoints.conversion import matrix_of, rename, take
from model.standardised import standardise

_BACKBONE = r"patch_embed\.backbone\."
_RESNET_V2 = (
    (_BACKBONE + r"(?:stem\.)?conv\.weight", "embedding.stem.root.0.convolve.weight"),
    (_BACKBONE + r"(?:stem\.)?norm\.(\w+)", r"embedding.stem.root.0.norm.\1"),
    (_BACKBONE + r"stages\.(\d)\.blocks\.(\d+)\.conv1\.weight", r"embedding.stem.stages.\1.\2.reduce.convolve.weight"),
    (_BACKBONE + r"stages\.(\d)\.blocks\.(\d+)\.norm1\.(\w+)", r"embedding.stem.stages.\1.\2.reduce.norm.\3"),
    (
        _BACKBONE + r"stages\.(\d)\.blocks\.(\d+)\.conv2\.weight",
        r"embedding.stem.stages.\1.\2.convolve.convolve.weight",
    ),
    (_BACKBONE + r"stages\.(\d)\.blocks\.(\d+)\.norm2\.(\w+)", r"embedding.stem.stages.\1.\2.convolve.norm.\3"),
    (_BACKBONE + r"stages\.(\d)\.blocks\.(\d+)\.conv3\.weight", r"embedding.stem.stages.\1.\2.expand.convolve.weight"),
    (_BACKBONE + r"stages\.(\d)\.blocks\.(\d+)\.norm3\.(\w+)", r"embedding.stem.stages.\1.\2.expand.norm.\3"),
    (
        _BACKBONE + r"stages\.(\d)\.blocks\.(\d+)\.downsample\.conv\.weight",
        r"embedding.stem.stages.\1.\2.shortcut.convolve.weight",
    ),
    (
        _BACKBONE + r"stages\.(\d)\.blocks\.(\d+)\.downsample\.norm\.(\w+)",
        r"embedding.stem.stages.\1.\2.shortcut.norm.\3",
    ),
)
# Convolutions of ResNet-D beside their batch norms.
_RESNET_D_UNITS = {"reduce": ("conv1", "bn1"), "convolve": ("conv2", "bn2"), "expand": ("conv3", "bn3")}
_RESNET_D_ROOT = (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1"))


def timm_stem(tensors: dict[str, Tensor], stem: Stem) -> dict[str, Tensor]:
    """The stem of a timm model in our names; all that is not of the stem stays as it is."""
    if stem == "resnetv2":
        ours = rename(tensors, _RESNET_V2)
        return {name: _standardised(name, tensor) for name, tensor in ours.items()}
    if stem == "resnetd":
        return _resnet_d(tensors)
    return _patchwise(tensors) if stem == "patchwise" else tensors


def _standardised(name: str, tensor: Tensor) -> Tensor:
    kernel = re.fullmatch(r"embedding\.stem\..*\.convolve\.weight", name)
    return standardise(tensor.double()).float() if kernel else tensor


def fold_batch_norm(tensors: dict[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    """Take a convolution and its batch norm (epsilon 1e-5) out of `tensors`: kernel `[O, I, k, k]` and bias `[O]`."""
    tensors.pop(f"{norm}.num_batches_tracked", None)
    weight, bias, mean, variance = (
        take(tensors, f"{norm}.{part}").double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = weight / (variance + 1e-5).sqrt()
    kernel = take(tensors, f"{convolution}.weight").double() * factor[:, None, None, None]
    own = tensors.pop(f"{convolution}.bias", torch.zeros(len(mean))).double()
    return kernel.float(), ((own - mean) * factor + bias).float()


def _resnet_d(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    ours, start = dict(tensors), "patch_embed.backbone."
    pairs = [(f"root.{index}", *pair) for index, pair in enumerate(_RESNET_D_ROOT)]
    units = {match[0] for name in tensors if (match := re.match(_BACKBONE + r"layer\d\.\d+\.", name))}
    for unit in sorted(units):
        layer, index = re.findall(r"\d+", unit)
        place, local = f"stages.{int(layer) - 1}.{index}", unit.removeprefix(start)
        pairs += [(f"{place}.{part}", local + conv, local + norm) for part, (conv, norm) in _RESNET_D_UNITS.items()]
        if f"{unit}downsample.1.weight" in tensors:
            pairs.append((f"{place}.shortcut.1", f"{local}downsample.1", f"{local}downsample.2"))
    for place, convolution, norm in pairs:
        kernel, bias = fold_batch_norm(ours, start + convolution, start + norm)
        ours |= {f"embedding.stem.{place}.convolve.weight": kernel, f"embedding.stem.{place}.convolve.bias": bias}
    return ours


def _patchwise(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    ours, start = dict(tensors), "patch_embed.backbone."
    for index in (0, 1):
        kernel, bias = fold_batch_norm(ours, f"{start}{index}.conv", f"{start}{index}.bn")
        ours |= {f"embedding.layers.{index}.weight": matrix_of(kernel), f"embedding.layers.{index}.bias": bias}
    ours["embedding.layers.2.weight"] = matrix_of(take(ours, f"{start}2.conv.weight"))
    ours["embedding.layers.2.bias"] = take(ours, f"{start}2.conv.bias")
    return ours
