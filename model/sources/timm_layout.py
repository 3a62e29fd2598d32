"""Checkpoints of timm: `config.json` holds architecture, pretrained_cfg and sometimes labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from model.checkpoints import pixels
from model.checkpoints.loading import CheckpointError
from model.sources.converted import Converted, convert
from model.sources.labels import in_order, of_imagenet
from model.sources.source import Bundle


def read(weights: Mapping[str, Tensor], config: dict[str, Any], bundle: Bundle) -> Converted:
    """Convert a checkpoint as `timm.models.save_for_hf` lays it out.

    Raises:
        CheckpointError: if a part of it is not known.
    """
    if "pretrained_cfg" not in config:  # before timm 0.9 its fields lay one level up
        config = config | {"pretrained_cfg": config}
    pretrained = config["pretrained_cfg"]
    chosen = pixels.from_timm(pretrained)
    model = convert("timm", weights, config, chosen)
    labels = _labels(config) or _labels(pretrained)
    notes = []
    if labels is None and (labels := of_imagenet(model.config.classes)) is not None:
        notes.append(f"the checkpoint names no classes: it has {len(labels)}, so labels are those of ImageNet")
    return Converted(
        model=model,
        pixels=chosen,
        labels=labels,
        description=f"{config['architecture']} of timm",
        licence=str(pretrained.get("license") or ""),
        notes=tuple(notes),
    )


def _labels(config: Mapping[str, Any]) -> Sequence[str] | None:
    """Descriptions where there are any, else names, which may be codes such as n01440764."""
    names = config.get("label_names")
    if not names:
        return None
    descriptions = config.get("label_descriptions") or {}
    try:
        return [str(descriptions.get(name, name)) for name in in_order(names)]
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"label_names of config.json cannot be used: {error}") from None
