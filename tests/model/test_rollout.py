"""Attention rollout against a computation by hand, from the weights that hooks see; padding never matters."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.architecture import ViTConfig
from model.attention import Attention
from model.manifest import Preprocessing
from model.pooling import AttentionPooling
from model.rollout import attention_shares, has_rollout
from model.vit import VisionTransformer

SPEC = Preprocessing(4, (3, 3), 20, resize="aspect")
PLAIN = ViTConfig(width=24, depth=3, heads=3, mlp_dim=32, classes=4)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "class token": {},
    "registers": {"registers": 2},
    "distilled": {"registers": 1, "distilled": True},
    "average": {"class_token": False, "pooling": "average"},
    "average of all tokens": {"registers": 1, "pooling": "average", "pool_prefix": True},
    "token and average": {"pooling": "token+average", "final_norm": "tokens", "registers": 1},
    "attention pooling": {"class_token": False, "pooling": "attention", "final_norm": "tokens"},
    "attention pooling beside a prefix": {"registers": 1, "pooling": "attention", "final_norm": "tokens"},
    "parallel, with norms of queries": {"block": "parallel", "qk_norm": True},
    "branches": {"branches": 2},
}


def make_model(options: dict[str, Any]) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(replace(PLAIN, **options), SPEC).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def weights_by_hand(model: VisionTransformer, patches: Tensor, grid: Tensor) -> list[NDArray[np.float64]]:
    """Softmax weights of one image, averaged over heads: [S, T] of each attention module, in order of their calls."""
    found: list[NDArray[np.float64]] = []

    def keep(query: Tensor, key: Tensor, heads: int) -> None:
        split = [each[0].double().numpy().reshape(each.shape[1], heads, -1).swapaxes(0, 1) for each in (query, key)]
        scores = np.exp(split[0] @ split[1].swapaxes(1, 2) / np.sqrt(split[0].shape[-1]))
        found.append((scores / scores.sum(-1, keepdims=True)).mean(0))

    def of_block(module: Attention, inputs: tuple[Tensor, Tensor, int | None]) -> None:
        query, key, _ = module.qkv(inputs[0], inputs[2])
        if module.query_norm is not None and module.key_norm is not None:
            shape = (1, -1, module.heads, query.shape[-1] // module.heads)
            query = module.query_norm(query.view(shape)).flatten(2)
            key = module.key_norm(key.view(shape)).flatten(2)
        keep(query, key, module.heads)

    def of_pooling(module: AttentionPooling, inputs: tuple[Tensor, Tensor]) -> None:
        keep(module.query, module.key_value(inputs[0]).chunk(2, -1)[0], module.heads)

    hooks = [
        each.register_forward_pre_hook(of_block if isinstance(each, Attention) else of_pooling)  # type: ignore[arg-type]
        for each in model.modules()
        if isinstance(each, Attention | AttentionPooling)
    ]
    with torch.no_grad():
        model(patches[None], grid[None])
    for hook in hooks:
        hook.remove()
    return found


def rollout_by_hand(model: VisionTransformer, patches: Tensor, grid: Tensor) -> NDArray[np.float64]:
    """The whole product of matrices, row by row as the paper has it, for one image without padding."""
    config, found = model.config, weights_by_hand(model, patches, grid)
    pooling = found.pop() if config.pooling == "attention" else None
    tokens = len(patches) + config.prefix
    product = np.eye(tokens)
    for block in range(config.depth):
        weights = np.mean(found[block * config.branches : (block + 1) * config.branches], axis=0)
        mixed = weights + np.eye(tokens)[: len(weights)]  # the last block computes its first tokens alone
        product = (mixed / mixed.sum(1, keepdims=True)) @ product
    body = product[0 if config.pool_prefix else config.prefix :] if len(product) == tokens else product
    row = {
        "token": lambda: product[:2].mean(0) if config.distilled else product[0],
        "average": lambda: body.mean(0),
        "token+average": lambda: (product[0] + body.mean(0)) / 2,
        "attention": lambda: pooling[0] @ body,  # type: ignore[index]
    }[config.pooling]()
    patches_alone: NDArray[np.float64] = row[config.prefix :]
    return patches_alone / patches_alone.sum()


@pytest.mark.parametrize("options", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_it_is_what_a_computation_by_hand_gives_alone_and_in_a_padded_batch(options: dict[str, Any]) -> None:
    model = make_model(options)
    grids = torch.tensor([[3, 4], [1, 1], [5, 2]])
    patches = torch.randint(0, 256, (3, 15, SPEC.patch_dim), dtype=torch.uint8)
    with torch.no_grad():
        together = attention_shares(model, patches, grids)
        again = attention_shares(model, torch.where(_own(grids), patches, 255 - patches), grids)
    assert together.shape == (3, 15)
    torch.testing.assert_close(together.sum(1), torch.ones(3))
    torch.testing.assert_close(again, together, atol=1e-7, rtol=0)
    for row, (rows, columns) in enumerate(grids.tolist()):
        size = rows * columns
        expected = rollout_by_hand(model, patches[row, :size], grids[row])
        np.testing.assert_allclose(together[row, :size], expected, atol=1e-5)
        assert not together[row, size:].any(), "padding has no share"
    assert together[0, :12].max() > 1.02 / 12, "an even share everywhere would prove nothing"


def _own(grids: Tensor) -> Tensor:
    return (torch.arange(15) < grids.prod(1)[:, None])[:, :, None]


def test_differential_attention_has_none() -> None:
    assert has_rollout(PLAIN)
    assert not has_rollout(replace(PLAIN, attention="differential", heads=2))
