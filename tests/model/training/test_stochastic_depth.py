"""Some images skip branches while training; nothing else changes."""

from typing import Any

import pytest
import torch

from model.architecture import ViTConfig
from model.manifest import Preprocessing
from model.training.stochastic_depth import drop_paths
from model.vit import VisionTransformer

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"block": "post-norm"},
    {"block": "parallel"},
    {"branches": 2, "layer_scale": True},
    {"attention": "differential"},
]


def model_of(depth: int = 1, **layout: Any) -> VisionTransformer:
    torch.manual_seed(0)
    config = ViTConfig(width=16, depth=depth, heads=2, mlp_dim=32, classes=0, pooling="average", **layout)
    return VisionTransformer(config, Preprocessing(patch_size=4, native_grid=(2, 2), max_patches=16))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_as_many_images_skip_everything_as_should(layout: dict[str, Any]) -> None:
    model = model_of(**layout)
    block, image, lengths = model.blocks[0], torch.randn(1, 5, 16), torch.full((2000,), 5)
    names = list(model.state_dict())
    with torch.no_grad():
        plain = block.eval()(image, lengths[:1])
        drop_paths(model.blocks, 0.5)
        assert torch.equal(block(image, lengths[:1]), plain)
        dropped = block.train()(image.expand(2000, -1, -1), lengths)
    assert list(model.state_dict()) == names
    untouched = (dropped == image).flatten(1).all(1).float().mean()
    assert untouched == pytest.approx(0.5 ** (2 * layout.get("branches", 1)), abs=0.04)
    if layout == {"block": "parallel"}:  # its branches do not feed each other, so the mean is that without skipping
        torch.testing.assert_close(dropped.mean(0), plain[0], atol=0.15, rtol=0)


def test_later_blocks_are_skipped_more_often() -> None:
    model = model_of(depth=4).train()
    drop_paths(model.blocks, 0.8)
    image, lengths = torch.randn(1, 5, 16).expand(2000, -1, -1), torch.full((2000,), 5)
    with torch.no_grad():
        shares = [float((block(image, lengths) == image).flatten(1).all(1).float().mean()) for block in model.blocks]
    assert shares == pytest.approx([0.2**2, 0.4**2, 0.6**2, 0.8**2], abs=0.04)
