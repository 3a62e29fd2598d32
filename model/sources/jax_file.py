"""The original checkpoints of google-research/vision_transformer: one `.npz` file, and nothing beside it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from model.checkpoints.pixels import ORIGINAL_JAX
from model.sources.converted import Converted, convert
from model.sources.labels import of_imagenet
from model.sources.source import Bundle


def read(weights: Mapping[str, Tensor], config: dict[str, Any], bundle: Bundle) -> Converted:
    """Convert an `.npz` file; it holds weights alone, so labels are known by their number only.

    Raises:
        CheckpointError: if a part of it is not known.
    """
    model = convert("jax", weights, {}, ORIGINAL_JAX)
    spec = model.preprocessing
    pixels = replace(ORIGINAL_JAX, side=min(spec.native_grid) * spec.patch_size)
    labels = of_imagenet(model.config.classes)
    notes = ["the file says nothing of pixels: images are squashed to the square, values -1 to 1, as in vit_jax"]
    if labels is not None:
        notes.append(f"the file names no classes: it has {len(labels)}, so labels are those of ImageNet")
    origin = "Vision Transformer of google-research/vision_transformer"
    return Converted(model, pixels, labels, origin, notes=tuple(notes))
