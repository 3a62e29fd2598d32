"""From the files of a checkpoint to a model in memory: find out whose it is, convert it, add labels and pixels."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoints import baseline, native
from model.checkpoints.files import read_weights, safetensors_metadata
from model.checkpoints.loading import CheckpointError
from model.checkpoints.native import Description
from model.manifest import Provenance
from model.sources import folder, jax_file, timm_layout, torchvision_file, transformers_layout
from model.sources.converted import Converted
from model.sources.folder import read_json
from model.sources.labels import fitting
from model.sources.source import Bundle, Reference, Source

_Read = Callable[[Mapping[str, Tensor], dict[str, Any], Bundle], Converted]


def locate(reference: Reference) -> Bundle:
    """Find the files of a checkpoint, downloading what is not here.

    Raises:
        CheckpointError: in one line, with what to do.
    """
    if reference.kind == "path":
        return folder.find(reference.name)
    if reference.kind == "torchvision":
        return torchvision_file.fetch(reference)
    try:
        from model.sources import hub  # noqa: PLC0415 - files can be converted without the client
    except ImportError:
        raise CheckpointError("huggingface-hub is needed to download: pip install 'patchserve[export]'") from None
    return hub.fetch(reference)


def load(bundle: Bundle) -> Source:
    """Read, convert and describe a checkpoint.

    Raises:
        CheckpointError: if it cannot be used; the message says what is wrong with it.
    """
    if _is_native(bundle.weights[0]):
        return _load_native(bundle)
    weights: dict[str, Tensor] = {}
    for path in bundle.weights:
        weights |= read_weights(path)
    config = read_json(bundle.config) if bundle.config is not None else {}
    converted = _reader(weights, config, bundle)(weights, config, bundle)
    return _describe(converted, bundle)


def _is_native(path: Path) -> bool:
    return path.suffix == ".safetensors" and safetensors_metadata(path).get("format") == native.FORMAT


def _load_native(bundle: Bundle) -> Source:
    path = bundle.weights[0]
    model, description = native.load(path)
    return Source(model, description, Provenance(bundle.origin, digest_of((path,)), description.licence))


def _reader(weights: Mapping[str, Tensor], config: Mapping[str, Any], bundle: Bundle) -> _Read:
    path = bundle.weights[0]
    if path.suffix == ".npz":
        return jax_file.read
    if torchvision_file.is_torchvision(weights):
        return torchvision_file.read
    if folder.is_timm(config):
        return timm_layout.read
    if "model_type" in config:
        return transformers_layout.read
    if baseline.is_baseline(path):
        raise CheckpointError(f"{path}: a ResNet of model.resnet, which can be a --teacher and nothing else")
    if bundle.config is None:
        raise CheckpointError(
            f"{path}: no checkpoint of patchserve, and there is no config.json beside it: the one that timm or "
            "transformers wrote with the weights says what model they are"
        )
    raise CheckpointError(f"{bundle.config}: neither timm's (no architecture) nor that of transformers (no model_type)")


def _describe(converted: Converted, bundle: Bundle) -> Source:
    model, pixels, notes = converted.model, converted.pixels, list(converted.notes)
    notes += pixels.departures(model.preprocessing)
    model.preprocessing = pixels.fit(model.preprocessing)
    description = Description(
        labels=fitting(converted.labels, model.config.classes, notes),
        name=bundle.name,
        version=bundle.revision[:12] or "0",
        description=converted.description,
        licence=converted.licence or bundle.licence,
    )
    provenance = Provenance(bundle.origin, digest_of(bundle.weights), description.licence)
    return Source(model.eval(), description, provenance, tuple(notes))


def without_head(source: Source) -> Source:
    """The feature extractor inside a classifier: no labels, and `embedding` as the only output.

    Raises:
        CheckpointError: if the rest does not fit, which would be a mistake of ours.
    """
    if source.model.config.classes == 0:
        return source
    model = type(source.model)(replace(source.model.config, classes=0), source.model.preprocessing)
    weights = source.model.state_dict()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return replace(source, model=model.eval(), description=replace(source.description, labels=()))


def digest_of(paths: tuple[Path, ...]) -> str:
    """SHA-256 of a file; of several files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
