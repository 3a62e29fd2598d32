"""Blocks: computing the first tokens alone gives what computing all gives."""

from typing import Any

import pytest
import torch

from model.architecture import ViTConfig
from model.blocks import make_block

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"block": "post-norm"},
    {"block": "parallel", "qk_norm": True},
    {"branches": 2, "layer_scale": True},
    {"attention": "differential"},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_first_tokens_alone_are_the_same(layout: dict[str, Any]) -> None:
    torch.manual_seed(0)
    block = make_block(ViTConfig(width=16, depth=1, heads=2, mlp_dim=32, **layout), (2, 3)).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens, lengths = torch.randn(3, 7, 16, dtype=torch.float64), torch.tensor([7, 2, 5])
    everything, first = block(tokens, lengths), block(tokens, lengths, 2)
    assert first.shape == (3, 2, 16)
    torch.testing.assert_close(first, everything[:, :2], atol=1e-12, rtol=0)
