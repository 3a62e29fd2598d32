"""torchvision's Vision Transformers: a `.pth` file whose SHA-256 says which weights they are."""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoints.loading import CheckpointError
from model.checkpoints.pixels import IMAGENET, TORCHVISION, Pixels
from model.sources.converted import Converted, convert
from model.sources.labels import of_imagenet
from model.sources.source import Bundle, Reference, model_name

# Names of torchvision's files end in the first eight digits of their hash, and torch.hub checks them.
_WEIGHTS = {
    "c867db91": ("vit_b_16", "IMAGENET1K_V1"),
    "9ac1b537": ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"),
    "4e70ced5": ("vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1"),
    "d86f8d99": ("vit_b_32", "IMAGENET1K_V1"),
    "852ce7e3": ("vit_l_16", "IMAGENET1K_V1"),
    "4f3808c9": ("vit_l_16", "IMAGENET1K_SWAG_E2E_V1"),
    "4d563306": ("vit_l_16", "IMAGENET1K_SWAG_LINEAR_V1"),
    "c7638314": ("vit_l_32", "IMAGENET1K_V1"),
    "80465313": ("vit_h_14", "IMAGENET1K_SWAG_E2E_V1"),
    "c1eb923e": ("vit_h_14", "IMAGENET1K_SWAG_LINEAR_V1"),
}
_ARCHITECTURES = {
    # width, patch side
    (768, 16): "vit_b_16",
    (768, 32): "vit_b_32",
    (1024, 16): "vit_l_16",
    (1024, 32): "vit_l_32",
    (1280, 14): "vit_h_14",
}


def fetch(reference: Reference) -> Bundle:
    """Download weights of torchvision into the cache of torch.hub, or find them there.

    Raises:
        CheckpointError: in one line, with what to do.
    """
    entry = _entry(reference)
    url: str = entry.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[-1])
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{url} cannot be downloaded ({error}): put the file at {path}") from None
    origin = f"torchvision:{reference.name}@{entry.name}"
    licence = str(entry.meta.get("license", ""))
    return Bundle(origin, model_name(reference.name), (path,), licence=licence, revision=str(entry.name))


def _entry(reference: Reference) -> Any:
    """The entry of torchvision's own catalogue."""
    known = sorted({name for name, _ in TORCHVISION})
    if reference.name not in known:
        raise CheckpointError(f"torchvision has no Vision Transformer {reference.name!r}: it has {', '.join(known)}")
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError:
        raise CheckpointError("torchvision is needed for its catalogue of weights: pip install torchvision") from None
    catalogue = models.get_model_weights(reference.name)
    if not reference.revision:
        return catalogue.DEFAULT
    if reference.revision not in catalogue.__members__:
        names = ", ".join(catalogue.__members__)
        raise CheckpointError(f"{reference.name} has no weights {reference.revision!r}: it has {names}")
    return catalogue[reference.revision]


def is_torchvision(weights: Mapping[str, Tensor]) -> bool:
    """Whether the names of the weights are torchvision's."""
    return "conv_proj.weight" in weights and "encoder.pos_embedding" in weights


def read(weights: Mapping[str, Tensor], config: dict[str, Any], bundle: Bundle) -> Converted:
    """Convert a state dict of `torchvision.models.vit_*`.

    Raises:
        CheckpointError: if a part of it is not known.
    """
    projection = weights["conv_proj.weight"].shape
    architecture = _ARCHITECTURES.get((projection[0], projection[-1]))
    if architecture is None:
        raise CheckpointError(f"a projection of shape {list(projection)} is in no Vision Transformer of torchvision")
    pixels, notes = _pixels(bundle.weights[0])
    model = convert("torchvision", weights, {"architecture": architecture}, pixels or IMAGENET)
    labels = of_imagenet(model.config.classes)
    if pixels is None:
        labels = None
        side = min(model.preprocessing.native_grid) * model.preprocessing.patch_size
        pixels = replace(IMAGENET, side=side, resize_to=round(side / 0.875))
    return Converted(model, pixels, labels, f"{architecture} of torchvision", notes=notes)


def _pixels(path: Path) -> tuple[Pixels | None, tuple[str, ...]]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if published := _WEIGHTS.get(digest[:8]):
        return TORCHVISION[published], ()
    return None, ("these are no published weights: images are prepared as torchvision evaluates on ImageNet",)
