"""How each source prepares an image, read from its own configuration: pixels only, nothing about patches.

One class holds what they have in common; timm's dialect and torchvision's table are here, that of transformers is in
`model.checkpoints.processors`. What cannot be expressed is
refused, because an image prepared in another way gives other logits without any error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from model.checkpoints.loading import CheckpointError
from model.manifest import Interpolation, Preprocessing

Triple = tuple[float, float, float]
HALF: Triple = (0.5, 0.5, 0.5)
_IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
_IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Pixels:
    """From a decoded image to normalised values.

    Attributes:
        side: of the square that the model gets, pixels.
        resize: as in `model.manifest.Preprocessing`.
        resize_to: side before the centre crop, pixels; None without a crop.
        interpolation: resampling filter, antialiased.
        mean, std: normalisation per channel, of values scaled to 0..1.
        background: RGB colour 0..255 under transparent pixels.
    """

    side: int = 224
    resize: Literal["crop", "crop-floor", "squash"] = "squash"
    resize_to: int | None = None
    interpolation: Interpolation = "bicubic"
    mean: Triple = HALF
    std: Triple = HALF
    background: tuple[int, int, int] = (0, 0, 0)

    def fit(self, spec: Preprocessing) -> Preprocessing:
        """These pixels for the patches of a model.

        A model evaluated below the side of its position table (DINOv2: 224 pixels, a table of 518) gets a budget of
        patches that leads there; a larger `max_patches` leads to larger images.
        """
        native = min(spec.native_grid)
        evaluated = min(native, max(1, self.side // spec.patch_size))
        side = evaluated * spec.patch_size
        enlarged = self.resize_to or self.side
        if self.side // spec.patch_size > native:  # see `departures`: the proportion of the crop is kept
            enlarged = round(enlarged * side / self.side)
        keeps_all = self.resize == "squash" and enlarged <= side
        return replace(
            spec,
            max_patches=4 * spec.native_patches if evaluated == native else evaluated * evaluated,
            resize=self.resize,
            # The manifest counts it at the native side; it shrinks with the grid.
            resize_to=None if keeps_all else round(max(side, enlarged) * native / evaluated),
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            background=self.background,
        )

    def departures(self, spec: Preprocessing) -> tuple[str, ...]:
        """Where the patches of a model keep `fit` from doing exactly what the source does; sentences for a person."""
        native = min(spec.native_grid) * spec.patch_size
        if self.side - native >= spec.patch_size:
            return (
                f"the source prepares images of {self.side} pixels, but its position table is for {native}: "
                f"images become {native} pixels wide",
            )
        if rest := self.side % spec.patch_size:
            return (
                f"{self.side} pixels are not whole patches of {spec.patch_size}: the {self.side - rest} pixels in the "
                "centre are used, where the source uses those in the upper left corner",
            )
        return ()


# The original JAX code: resized to the square, values from -1 to 1 (vit_jax/input_pipeline.py of
# google-research/vision_transformer).
ORIGINAL_JAX = Pixels(interpolation="bilinear")

IMAGENET = Pixels(
    resize="crop", resize_to=256, interpolation="bilinear", mean=_IMAGENET_MEAN, std=_IMAGENET_STD
)  # torchvision's usual evaluation transform


def _swag(side: int) -> Pixels:
    return replace(IMAGENET, side=side, resize_to=side, interpolation="bicubic")


TORCHVISION: dict[tuple[str, str], Pixels] = {
    ("vit_b_16", "IMAGENET1K_V1"): IMAGENET,
    ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"): _swag(384),
    ("vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1"): _swag(224),
    ("vit_b_32", "IMAGENET1K_V1"): IMAGENET,
    ("vit_l_16", "IMAGENET1K_V1"): replace(IMAGENET, resize_to=242),
    ("vit_l_16", "IMAGENET1K_SWAG_E2E_V1"): _swag(512),
    ("vit_l_16", "IMAGENET1K_SWAG_LINEAR_V1"): _swag(224),
    ("vit_l_32", "IMAGENET1K_V1"): IMAGENET,
    ("vit_h_14", "IMAGENET1K_SWAG_E2E_V1"): _swag(518),
    ("vit_h_14", "IMAGENET1K_SWAG_LINEAR_V1"): _swag(224),
}


# --- timm -----------------------------------------------------------------------------------------------------------
def from_timm(config: Mapping[str, Any]) -> Pixels:
    """Read a `pretrained_cfg`; what it leaves out has timm's defaults (timm/data/config.py).

    Raises:
        CheckpointError: for what cannot be expressed.
    """
    channels, height, width = config.get("input_size") or (3, 224, 224)
    if channels != 3 or height != width:
        raise CheckpointError(f"input_size {channels}x{height}x{width}: only square RGB images can be prepared")
    mode = config.get("crop_mode") or "center"
    if mode not in {"center", "squash"}:
        raise CheckpointError(f"crop_mode {mode!r} of timm cannot be expressed: center and squash can")
    return Pixels(
        side=height,
        resize="crop" if mode == "center" else "squash",
        resize_to=math.floor(height / (config.get("crop_pct") or 0.875)),
        interpolation=_interpolation(config.get("interpolation") or "bicubic"),
        mean=triple("mean", config.get("mean") or _IMAGENET_MEAN),
        std=triple("std", config.get("std") or _IMAGENET_STD),
    )


def _interpolation(name: str) -> Interpolation:
    names: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos"}
    if name not in names:
        raise CheckpointError(f"interpolation {name!r} cannot be expressed: {', '.join(names)} can")
    return names[name]


def triple(name: str, values: Sequence[float]) -> Triple:
    """Three numbers, one per channel.

    Raises:
        CheckpointError: naming the field.
    """
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise CheckpointError(f"{name} {values!r} is not three numbers: only RGB images can be prepared")
    red, green, blue = map(float, values)
    return red, green, blue
