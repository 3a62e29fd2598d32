"""What every family of checkpoints is read into."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from model.checkpoints import from_jax, from_timm, from_torchvision, from_transformers
from model.checkpoints.pixels import Pixels
from model.vit import VisionTransformer

Family = Literal["timm", "transformers", "torchvision", "jax"]
_CONVERTERS: dict[Family, Callable[..., VisionTransformer]] = {
    "timm": from_timm.convert,
    "transformers": from_transformers.convert,
    "torchvision": from_torchvision.convert,
    "jax": from_jax.convert,
}


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
    return _CONVERTERS[family](weights, config, mean=pixels.mean, std=pixels.std)
