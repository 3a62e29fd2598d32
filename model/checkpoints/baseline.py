"""The checkpoint of a ResNet that `model.resnet` trained: it can teach a ViT, and is not served."""

import json
from pathlib import Path

from safetensors.torch import save_file

from model.bit import ResNet, decode_resnet
from model.checkpoints.files import read_weights, safetensors_metadata
from model.checkpoints.loading import CheckpointError, load_weights
from model.manifest import ManifestError, Preprocessing

FORMAT = "patchserve-resnet"


def save(path: Path, model: ResNet, variant: str, labels: tuple[str, ...]) -> None:
    """Write `model` to `path`, replacing it in one step.

    Args:
        path: ends in `.safetensors`.
        model: of that variant.
        variant: its name, such as `R20x0.25`.
        labels: one per logit.
    """
    metadata = {
        "format": FORMAT,
        "variant": variant,
        "preprocessing": json.dumps(model.preprocessing.to_dict()),
        "labels": json.dumps(labels, ensure_ascii=False),
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    partial = path.with_name(f"{path.name}.partial")
    save_file(weights, partial, metadata)
    partial.replace(path)


def is_baseline(path: Path) -> bool:
    """Whether a file is such a checkpoint."""
    return path.suffix == ".safetensors" and safetensors_metadata(path).get("format") == FORMAT


def load(path: Path) -> tuple[ResNet, tuple[str, ...]]:
    """Model and labels; the model comes back on the CPU, float32, in evaluation mode.

    Raises:
        CheckpointError: if it is damaged or does not fit its own metadata.
    """
    metadata = safetensors_metadata(path)
    try:
        layers, factor = decode_resnet(metadata["variant"])
        spec = Preprocessing.from_dict(json.loads(metadata["preprocessing"]))
        labels = tuple(json.loads(metadata["labels"]))
    except (KeyError, TypeError, ValueError, ManifestError) as error:
        raise CheckpointError(f"{path}: its metadata cannot be read: {error}") from None
    model = ResNet(layers, factor, len(labels), spec)
    load_weights(model, read_weights(path))
    return model.eval(), labels
