"""Names of architectures: `B/16`, `R50+B/16`, `Pico/4:relative`."""

import re
from dataclasses import replace
from typing import Any, get_args

from model.architecture import Positions, ViTConfig, stem_stride
from model.manifest import Preprocessing

# Table 1 of the paper, with Ti and S from DeiT (Touvron et al. 2021); then a family for images of 28 to 64 pixels.
_VARIANTS: dict[str, tuple[ViTConfig, tuple[int, ...], int]] = {
    # name: (architecture, patch sizes, image side in pixels)
    "Ti": (ViTConfig(width=192, depth=12, heads=3, mlp_dim=768), (14, 16, 32), 224),
    "S": (ViTConfig(width=384, depth=12, heads=6, mlp_dim=1536), (14, 16, 32), 224),
    "B": (ViTConfig(width=768, depth=12, heads=12, mlp_dim=3072), (14, 16, 32), 224),
    "L": (ViTConfig(width=1024, depth=24, heads=16, mlp_dim=4096), (14, 16, 32), 224),
    "H": (ViTConfig(width=1280, depth=32, heads=16, mlp_dim=5120), (14, 16, 32), 224),
    "Femto": (ViTConfig(width=64, depth=6, heads=2, mlp_dim=256), (4, 7, 8), 28),
    "Pico": (ViTConfig(width=96, depth=6, heads=3, mlp_dim=384), (4, 7, 8), 28),
    "Nano": (ViTConfig(width=128, depth=8, heads=4, mlp_dim=512), (4, 7, 8), 28),
}
# Residual units of each stage of a stem, by the number of its layers, 3 a unit and 2; the first that fits the patch is
# taken. R50 is the paper's (section 4.1): all of it for a stride of 32, or a longer third stage instead of the fourth.
# R26 is that of "How to train your ViT?" (Steiner et al. 2021), R8 ours, for small images.
_STEMS = {"R8": ("2",), "R26": ("2-2-2-2",), "R50": ("3-4-6-3", "3-4-9")}
_POSITIONS: tuple[Positions, ...] = get_args(Positions)


def decode_variant(name: str, *, image_size: int | None = None, classes: int = 1000) -> tuple[ViTConfig, Preprocessing]:
    """The architecture and the preprocessing that a name such as `B/16` stands for.

    Args:
        name: size and patch side, `Ti S B L H` with `/14 /16 /32`, `Femto Pico Nano` with `/4 /7 /8`. A ResNet stem
            stands before it, `R50+B/16`; other positions than 1-D stand behind it, `B/16:relative`.
        image_size: side of the native image, pixels, 7 to 4096; default 224, or 28 for the small family.
        classes: size of the head.

    Raises:
        ValueError: for an unknown name, a side smaller than one patch, or a patch that the stem's stride does not fit.
    """
    matched = re.fullmatch(r"(?:(R\d+)\+)?([A-Za-z]+)/(\d{1,3})(?::(\w+))?", name)
    stem, size, digits, positions = matched.groups() if matched else (None, "", "0", None)
    patch = int(digits)
    if size not in _VARIANTS or patch not in _VARIANTS[size][1] or (positions or "1d") not in _POSITIONS:
        known = ", ".join(f"{key}/{side}" for key, (_, sides, _) in _VARIANTS.items() for side in sides)
        raise ValueError(
            f"{name!r} is not a known variant; choose one of {known}; a hybrid has {', '.join(_STEMS)} and + before "
            f"that, other positions are : and one of {', '.join(_POSITIONS)} behind it"
        )
    architecture, _, default_size = _VARIANTS[size]
    side = default_size if image_size is None else image_size
    if not patch <= side <= 4096:
        raise ValueError(f"image_size must be from {patch} (one patch) to 4096 pixels, not {side}")
    grid = (side // patch, side // patch)
    preprocessing = Preprocessing(
        patch_size=patch,
        native_grid=grid,
        max_patches=4 * grid[0] * grid[1],
        resize="crop",
        resize_to=round(side / 0.875),  # 256 for 224: the usual evaluation transform
    )
    options = _stem_options(stem, patch) | ({"positions": positions} if positions else {})
    return replace(architecture, classes=classes, **options), preprocessing


def _stem_options(stem: str | None, patch: int) -> dict[str, Any]:
    """Fields of a hybrid's architecture."""
    if stem is None:
        return {}
    if stem not in _STEMS:
        raise ValueError(f"{stem!r} is not a known stem; choose one of {', '.join(_STEMS)}")
    fitting = [layers for layers in _STEMS[stem] if patch % stem_stride(layers) == 0]
    if not fitting:
        stride = min(stem_stride(layers) for layers in _STEMS[stem])
        raise ValueError(
            f"the stem {stem} has a stride of {stride} pixels, and a patch of {patch} is no multiple of it"
        )
    return {"stem": "resnetv2", "stem_layers": fitting[0], "stem_standardised": True}
