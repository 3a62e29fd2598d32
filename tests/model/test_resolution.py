"""Positions for another native grid: answers for images of that grid stay."""

from dataclasses import replace

import pytest
import torch

from model.checkpoints.loading import load_weights
from model.relative import Offsets
from model.resolution import resampled_weights
from model.variants import decode_variant
from model.vit import VisionTransformer


@pytest.mark.parametrize(
    ("positions", "grid", "limit"),
    [
        ("1d", (6, 5), 1e-5),
        ("2d", (6, 5), 1e-5),
        ("none", (6, 5), 1e-5),
        ("relative", (4, 4), 0),
        ("relative", (6, 5), 0.1),
    ],
)
def test_an_image_of_the_new_grid_is_answered_as_before(positions: str, grid: tuple[int, int], limit: float) -> None:
    torch.manual_seed(0)
    config, spec = decode_variant(f"Femto/7:{positions}", classes=3)
    config = replace(config, depth=2)
    model = VisionTransformer(config, spec).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    resized = VisionTransformer(config, replace(spec, native_grid=grid)).eval()
    load_weights(resized, resampled_weights(model, grid))
    patches = torch.randint(0, 256, (1, grid[0] * grid[1], 147), dtype=torch.uint8)
    with torch.no_grad():
        before, after = (each(patches, torch.tensor([grid]))[0] for each in (model, resized))
    torch.testing.assert_close(after, before, atol=limit, rtol=0)


def test_an_offset_keeps_its_share_of_the_image() -> None:
    offsets = Offsets(1, 1, 3)
    offsets.table.data = torch.arange(5.0).view(1, 1, 5)
    doubled = offsets.resampled(6).flatten().tolist()
    assert doubled == [0, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4]
    assert offsets.resampled(1).flatten().tolist() == [2]
