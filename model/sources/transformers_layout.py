"""Checkpoints of Hugging Face transformers: `config.json` with id2label, `preprocessor_config.json` for the pixels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from model.checkpoints.loading import CheckpointError
from model.checkpoints.pixels import Pixels
from model.checkpoints.processors import from_transformers
from model.sources.converted import Converted, convert
from model.sources.folder import read_json
from model.sources.labels import in_order
from model.sources.source import Bundle


def read(weights: Mapping[str, Tensor], config: dict[str, Any], bundle: Bundle) -> Converted:
    """Convert a checkpoint as `save_pretrained` lays it out.

    Raises:
        CheckpointError: if a part of it is not known.
    """
    pixels, notes = _pixels(config, bundle)
    model = convert("transformers", weights, config, pixels)
    kind = next(iter(config.get("architectures") or []), config["model_type"])
    return Converted(model, pixels, _labels(config), f"{kind} of transformers", notes=notes)


def _pixels(config: Mapping[str, Any], bundle: Bundle) -> tuple[Pixels, tuple[str, ...]]:
    model_type = str(config["model_type"])
    if bundle.processor is not None:
        return from_transformers(read_json(bundle.processor), model_type), ()
    pixels = from_transformers(None, model_type)
    side = config.get("vision_config", config).get("image_size")
    if isinstance(side, int) and pixels.resize == "squash" and pixels.resize_to is None:
        pixels = replace(pixels, side=side)
    note = (
        f"there is no preprocessor_config.json: images are prepared as transformers does for a {model_type} by default"
    )
    return pixels, (f"{note} ({pixels.resize} to {pixels.side} pixels, mean {pixels.mean}, std {pixels.std})",)


def _labels(config: Mapping[str, Any]) -> Sequence[str] | None:
    names = config.get("id2label")
    if not names:
        return None
    try:
        labels = in_order(names)
    except ValueError as error:
        raise CheckpointError(f"id2label of config.json cannot be used: {error}") from None
    # What transformers writes when nobody named the classes says nothing.
    return None if all(re.fullmatch(r"LABEL_\d+", label) for label in labels) else labels
