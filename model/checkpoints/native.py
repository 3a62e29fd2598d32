"""Our own checkpoint: one safetensors file with weights, and architecture, labels and preprocessing in its metadata."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.architecture import ViTConfig
from model.checkpoints.loading import CheckpointError, load_weights
from model.manifest import Accuracy, ManifestError, Preprocessing
from model.vit import VisionTransformer

FORMAT = "patchserve"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint says of itself beside the weights."""

    labels: tuple[str, ...]  # one per logit
    name: str = "model"
    version: str = "0"
    description: str = ""
    licence: str = ""
    command: str = ""  # that trained it
    accuracy: Accuracy = field(default_factory=Accuracy)


def save(path: Path, model: VisionTransformer, description: Description) -> None:
    """Write `model` to `path`, replacing it in one step, so that a kill leaves the old file or the new one."""
    metadata = {
        "format": FORMAT,
        "schema": str(SCHEMA),
        "config": json.dumps(asdict(model.config)),
        "preprocessing": json.dumps(model.preprocessing.to_dict()),
        "description": json.dumps(asdict(description), ensure_ascii=False),
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    save_file(weights, partial, metadata)
    partial.replace(path)


def load(path: Path) -> tuple[VisionTransformer, Description]:
    """Read a checkpoint written by `save`; the model comes back on the CPU, float32, in evaluation mode.

    Raises:
        CheckpointError: if the file is missing, not safetensors, not ours, damaged, or does not fit its own config.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error})") from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of patchserve (its metadata has no format={FORMAT!r})")
    if metadata.get("schema") != str(SCHEMA):
        raise CheckpointError(f"{path}: checkpoint schema {metadata.get('schema')}; this release reads {SCHEMA}")
    try:
        config = ViTConfig(**json.loads(metadata["config"]))
        preprocessing = Preprocessing.from_dict(json.loads(metadata["preprocessing"]))
        description = _description(json.loads(metadata["description"]))
    except (KeyError, TypeError, ValueError, ManifestError) as error:
        raise CheckpointError(f"{path}: its metadata cannot be read: {error}") from None
    if len(description.labels) != config.classes:
        raise CheckpointError(f"{path}: {len(description.labels)} labels for {config.classes} classes")
    with torch.device("meta"):
        model = VisionTransformer(config, preprocessing)
    load_weights(model, weights)
    return model.eval(), description


def _description(document: dict[str, Any]) -> Description:
    accuracy = document.pop("accuracy")
    curve = tuple((int(budget), float(top1)) for budget, top1 in accuracy["curve"])
    known = {item.name for item in fields(Description)}
    if unknown := document.keys() - known:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    labels = tuple(document.pop("labels"))
    return Description(labels=labels, accuracy=Accuracy(accuracy["dataset"], curve), **document)
