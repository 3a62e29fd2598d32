"""What every family of checkpoints is read into."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from model.checkpoints.pixels import Pixels
from model.vit import VisionTransformer

Family = Literal["timm", "transformers", "torchvision", "jax"]


@dataclass(frozen=True, slots=True)
class Converted:
    """A model in our terms, with what its source says of labels and pixels.

    Attributes:
        model: `preprocessing` holds its patches; `pixels` have yet to be fitted to them.
        pixels: how the source prepares images.
        labels: in the order of logits; None if the source names none.
        description: one sentence for people.
        licence: if the source states it beside the weights.
        notes: what was assumed; sentences.
    """

    model: VisionTransformer
    pixels: Pixels
    labels: Sequence[str] | None = None
    description: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()


def convert(
    family: Family, weights: Mapping[str, Tensor], config: Mapping[str, Any], pixels: Pixels
) -> VisionTransformer:
    """Run the converter of a family.

    Raises:
        CheckpointError: naming what it does not know.
    """
    module = importlib.import_module(f"model.checkpoints.from_{family}")
    model: VisionTransformer = module.convert(weights, config, mean=pixels.mean, std=pixels.std)
    return model
