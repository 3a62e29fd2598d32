"""Names of architectures: what they stand for, what is refused, and that everything named can learn."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from model.variants import decode_variant
from model.vit import VisionTransformer


def test_a_variant_says_what_a_patch_is() -> None:
    _, preprocessing = decode_variant("B/32", image_size=384)
    assert (preprocessing.patch_size, preprocessing.native_grid) == (32, (12, 12))
    assert preprocessing.resize_to == 439


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("B/16", {"positions": "1d", "stem": "patches"}),
        ("Pico/4:relative", {"positions": "relative", "width": 96}),
        ("R50+B/16", {"stem": "resnetv2", "stem_layers": "3-4-9", "stem_standardised": True, "width": 768}),
        ("R50+L/32", {"stem_layers": "3-4-6-3", "width": 1024}),
        ("R26+S/32:2d", {"stem_layers": "2-2-2-2", "positions": "2d", "width": 384}),
    ],
)
def test_stems_stand_before_and_positions_behind(name: str, fields: dict[str, Any]) -> None:
    config, _ = decode_variant(name)
    assert {field: getattr(config, field) for field in fields} == fields


@pytest.mark.parametrize("name", ["", "B", "B/15", "X/16", "B/16/16", "b/16", "Ti/4", "B/9999", "B/16:3d", "B/16:"])
def test_unknown_variants_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose one of Ti/14, Ti/16.*R50.*relative"):
        decode_variant(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("R51+B/16", "'R51' is not a known stem; choose one of R8, R26, R50"),
        ("R26+B/16", "a stride of 32 pixels, and a patch of 16 is no multiple"),
    ],
)
def test_a_stem_that_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_variant(name)


@pytest.mark.parametrize("image_size", [3, 5000])
def test_an_impossible_image_size_is_refused(image_size: int) -> None:
    with pytest.raises(ValueError, match="image_size must be from 4"):
        decode_variant("Pico/4", image_size=image_size)


@pytest.mark.parametrize("name", ["Femto/7:none", "Femto/7:1d", "Femto/7:2d", "Femto/7:relative", "R8+Femto/8"])
def test_every_parameter_of_a_variant_learns(name: str) -> None:
    torch.manual_seed(0)
    config, spec = decode_variant(name, classes=3)
    config = replace(config, depth=2)
    model = VisionTransformer(config, spec)
    patches = torch.randint(0, 256, (2, 12, spec.patch_dim), dtype=torch.uint8)
    logits, _ = model(patches, torch.tensor([[3, 4]] * 2))
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    still = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    # In the last block the class token alone is read, and no offset leads to it.
    last = {f"blocks.{config.depth - 1}.attention.{axis}.table" for axis in ("rows", "columns")}
    assert still == (last if config.positions == "relative" else set())


def test_without_positions_patches_are_a_bag() -> None:
    """The order of patches changes nothing, and with any other positions it does."""
    patches = torch.randint(0, 256, (1, 12, 147), dtype=torch.uint8)
    shuffled, grid = patches[:, torch.randperm(12, generator=torch.Generator().manual_seed(0))], torch.tensor([[3, 4]])
    for positions, is_bag in {"none": True, "1d": False, "2d": False, "relative": False}.items():
        torch.manual_seed(0)
        config, spec = decode_variant(f"Femto/7:{positions}", classes=3)
        model = VisionTransformer(replace(config, depth=2), spec).double().eval()
        with torch.no_grad():
            assert torch.allclose(model(patches, grid)[0], model(shuffled, grid)[0], atol=1e-9) == is_bag, positions


def test_positions_that_an_architecture_cannot_have_are_refused() -> None:
    config, _ = decode_variant("Femto/7:relative")
    with pytest.raises(ValueError, match="need softmax attention, not differential"):
        type(config)(width=64, depth=2, heads=2, mlp_dim=64, attention="differential", positions="relative")
    with pytest.raises(ValueError, match="the width 63 must be even"):
        type(config)(width=63, depth=2, heads=3, mlp_dim=64, positions="2d")
