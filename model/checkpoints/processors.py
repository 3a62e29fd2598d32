"""The image processors of transformers, as far as a `preprocessor_config.json` describes them."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from model.checkpoints.loading import CheckpointError
from model.checkpoints.pixels import HALF, Pixels, triple
from model.manifest import Interpolation

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLE: dict[int, Interpolation] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # as Pillow numbers them
_PROCESSORS: dict[str, dict[str, Any]] = {
    # class: what it does when its file does not say (transformers/models/*/image_processing_*.py)
    "ViT": {"size": {"height": 224, "width": 224}, "resample": 2, "image_mean": HALF, "image_std": HALF},
    "DeiT": {
        "size": {"height": 256, "width": 256},
        "crop_size": 224,
        "do_center_crop": True,
        "resample": 3,
        "image_mean": HALF,
        "image_std": HALF,
    },
    "Bit": {
        "size": {"shortest_edge": 224},
        "crop_size": 224,
        "do_center_crop": True,
        "resample": 3,
        "image_mean": _CLIP_MEAN,
        "image_std": _CLIP_STD,
    },
    "Siglip": {"size": {"height": 224, "width": 224}, "resample": 3, "image_mean": HALF, "image_std": HALF},
    "ConvNext": {
        "size": {"shortest_edge": 384},
        "crop_pct": 224 / 256,
        "resample": 3,
        "image_mean": HALF,
        "image_std": HALF,
    },
}
_PROCESSORS["CLIP"] = _PROCESSORS["Bit"]
_SHORTEST_EDGE = {"Bit", "CLIP", "ConvNext"}  # what a `size` that is one number means
_OF_MODEL = {"deit": "DeiT", "dinov2": "Bit", "dinov2_with_registers": "Bit", "siglip": "Siglip"}


def from_transformers(document: Mapping[str, Any] | None, model_type: str = "vit") -> Pixels:
    """Read a `preprocessor_config.json`.

    Args:
        document: its content; None if there is no such file: the default of the model's own processor.
        model_type: of `config.json`, for a document that does not name its class.

    Raises:
        CheckpointError: for what cannot be expressed.
    """
    document = document or {}
    document = document.get("image_processor", document)  # processor_config.json holds it one level down
    kind = _processor(document, model_type)
    given = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_pad": False} | _PROCESSORS[kind]
    given |= {key: value for key, value in document.items() if value is not None}
    _check_steps(given)
    side, resize, resize_to = _geometry(given, kind)
    normalise = given["do_normalize"]
    return Pixels(
        side=side,
        resize=resize,
        resize_to=resize_to,
        interpolation=_resample(given["resample"]),
        mean=triple("image_mean", given["image_mean"]) if normalise else (0.0, 0.0, 0.0),
        std=triple("image_std", given["image_std"]) if normalise else (1.0, 1.0, 1.0),
    )


def _processor(document: Mapping[str, Any], model_type: str) -> str:
    name = document.get("image_processor_type") or document.get("feature_extractor_type")
    if not isinstance(name, str):
        return _OF_MODEL.get(model_type, "ViT")
    kind = name
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    if kind not in _PROCESSORS:
        known = ", ".join(f"{each}ImageProcessor" for each in _PROCESSORS)
        raise CheckpointError(f"the image processor {name!r} is not known: {known} are")
    return kind


def _check_steps(given: Mapping[str, Any]) -> None:
    if not given["do_resize"]:
        raise CheckpointError("the image processor does not resize (do_resize is false): that cannot be served")
    factor = given.get("rescale_factor", 1 / 255)
    if not given["do_rescale"] or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise CheckpointError("the image processor does not scale pixels by 1/255: that cannot be expressed")
    if given["do_pad"]:
        raise CheckpointError("the image processor pads images (do_pad is true): that cannot be expressed")


def _resample(code: Any) -> Interpolation:
    if code not in _RESAMPLE:
        raise CheckpointError(f"resample {code!r} of the image processor cannot be expressed: 1, 2 and 3 can")
    return _RESAMPLE[code]


def _geometry(given: Mapping[str, Any], kind: str) -> tuple[int, Literal["crop", "crop-floor", "squash"], int | None]:
    """Side, how to get there, and the side before a centre crop."""
    size = given["size"]
    if isinstance(size, int):
        size = {"shortest_edge": size} if kind in _SHORTEST_EDGE else {"height": size, "width": size}
    crop = _square(given["crop_size"]) if given.get("do_center_crop") else None
    if set(size) == {"shortest_edge"}:
        edge = int(size["shortest_edge"])
        if kind == "ConvNext":  # its own rule: squashed from 384 pixels on, cropped below
            return (edge, "squash", None) if edge >= 384 else (edge, "crop-floor", int(edge / given["crop_pct"]))
        if crop is None:
            raise CheckpointError("the image processor resizes without a crop to one size: that cannot be served")
        return crop, "crop-floor", _covering(edge, crop)
    side = _square(size)
    return (side, "squash", None) if crop is None else (crop, "squash", _covering(side, crop))


def _square(size: Any) -> int:
    if isinstance(size, int):
        return size
    if not isinstance(size, dict) or set(size) != {"height", "width"} or size["height"] != size["width"]:
        raise CheckpointError(f"size {size!r} of the image processor cannot be expressed: only squares can")
    return int(size["height"])


def _covering(resized: int, crop: int) -> int:
    if resized < crop:
        raise CheckpointError(f"the image processor crops {crop} pixels from {resized}: the border cannot be expressed")
    return resized
