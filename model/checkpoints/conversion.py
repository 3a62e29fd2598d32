"""What converters have in common: renaming by table, and building the model from what the source says of itself.

Axes: `P` patch side, `C` channels, `D` width, `N` patches of the native grid.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec

import torch
from torch import Tensor

from model.architecture import ViTConfig
from model.checkpoints.loading import CheckpointError, load_weights
from model.manifest import Preprocessing
from model.vit import VisionTransformer

Arguments = ParamSpec("Arguments")
Renames = Iterable[tuple[str, str]]  # pattern of a whole name, replacement


def converter(function: Callable[Arguments, VisionTransformer]) -> Callable[Arguments, VisionTransformer]:
    """Turn what goes wrong with tensors of shapes that no model has into a `CheckpointError`."""

    @functools.wraps(function)
    def convert(*args: Arguments.args, **kwargs: Arguments.kwargs) -> VisionTransformer:
        try:
            return function(*args, **kwargs)
        except CheckpointError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint cannot be read, a tensor has an unknown shape ({error})") from error

    return convert


def rename(weights: Mapping[str, Tensor], table: Renames) -> dict[str, Tensor]:
    """Rename by the first pattern that fits; a name that none fits stays, and loading will call it unexpected."""
    patterns = [(re.compile(pattern), replacement) for pattern, replacement in table]
    renamed = {}
    for name, tensor in weights.items():
        found = next(((match, text) for pattern, text in patterns if (match := pattern.fullmatch(name))), None)
        renamed[found[0].expand(found[1]) if found else name] = tensor
    return renamed


def build(
    config: ViTConfig,
    weights: Mapping[str, Tensor],
    patch_size: int,
    native_grid: tuple[int, int],
    pixels: Mapping[str, Any],
) -> VisionTransformer:
    """The model of this architecture with these weights, in evaluation mode.

    Args:
        config: the architecture.
        weights: in our own names, any floating dtype.
        patch_size: pixels.
        native_grid: of the position table, rows and columns.
        pixels: further fields of `Preprocessing`; images are squashed to the native size unless it says more.

    Raises:
        CheckpointError: if the weights do not fit.
    """
    fields: dict[str, Any] = {"max_patches": 4 * math.prod(native_grid), "resize": "squash"} | dict(pixels)
    with torch.device("meta"):
        model = VisionTransformer(config, Preprocessing(patch_size=patch_size, native_grid=native_grid, **fields))
    load_weights(model, weights)
    return model.eval()


def add_zero_biases(weights: dict[str, Tensor], layers: Iterable[str]) -> None:
    """Give layers a bias of zeros, in place, where the source trained them without.

    Args:
        weights: in our own names.
        layers: ends of names; a kind of layer gets zeros only if none of its kind has a bias.
    """
    for layer in layers:
        matrices = [name for name in weights if name.endswith(f"{layer}.weight")]
        if not any(name.endswith(f"{layer}.bias") for name in weights):
            weights |= {f"{name[:-6]}bias": torch.zeros(weights[name].shape[0]) for name in matrices}


def join_qkv(weights: dict[str, Tensor]) -> None:
    """Put queries, keys and values of each attention into one layer, in place: `attention.query` ... to `qkv`."""
    for name in [name for name in weights if ".attention.query." in name]:
        parts = [take(weights, name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        weights[name.replace(".query.", ".qkv.")] = torch.cat(parts)


def matrix_of(convolution: Tensor) -> Tensor:
    """Kernel `[D, C, P, P]` as a matrix over flattened patches in (row, column, channel) order, `[D, P*P*C]`."""
    return convolution.permute(0, 2, 3, 1).flatten(1)


def square(count: int) -> tuple[int, int]:
    """The square grid of this many patches.

    Raises:
        CheckpointError: if there is none.
    """
    side = math.isqrt(count)
    if side < 1 or side * side != count:
        raise CheckpointError(f"a position table of {count} patches is not square, and nothing says what its sides are")
    return side, side


def required(weights: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor that the architecture is read from.

    Raises:
        CheckpointError: if it is not there.
    """
    if name not in weights:
        raise CheckpointError(f"the checkpoint has no {name}: it is not of the kind that its configuration says")
    return weights[name]


def take(weights: dict[str, Tensor], name: str) -> Tensor:
    """As `required`, and out of `weights` with it."""
    tensor = required(weights, name)
    del weights[name]
    return tensor


def count_of(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers the first group of `pattern` takes at the start of names; 0, 1, 2 ... without a gap."""
    return 1 + max((int(match[1]) for name in weights if (match := re.match(pattern, name))), default=-1)
