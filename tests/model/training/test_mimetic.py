"""Random weights that attend as trained ones do."""

import torch
from shades import tiny_model

from model.attention import Attention
from model.training.mimetic import begin_mimetically
from model.vit import VisionTransformer


def mimetic(variant: str = "Femto/7") -> VisionTransformer:
    model = tiny_model(variant=variant)
    begin_mimetically(model)
    return model


def attention(model: VisionTransformer) -> Attention:
    module = model.blocks[0].attention
    assert isinstance(module, Attention)
    return module


@torch.no_grad()
def test_a_patch_attends_to_patches_like_itself() -> None:
    """The mean over the diagonal of the product of queries and keys is that of 0.7 I, of the rank that a head has."""
    module = attention(mimetic())
    query, key, _ = module.qkv.weight.chunk(3)
    width, size = query.shape[1], query.shape[0] // module.heads
    for start in range(0, width, size):
        product = query[start : start + size].T @ key[start : start + size]
        assert torch.linalg.matrix_rank(product) == size
        diagonal = product.diagonal().mean()
        assert diagonal > 5 * (product - torch.diag(product.diagonal())).mean().abs()
        assert 0.3 < diagonal < 1.0


@torch.no_grad()
def test_values_and_projection_are_near_the_negative_identity() -> None:
    module = attention(mimetic())
    product = module.qkv.weight.chunk(3)[2].T @ module.project.weight.T
    assert -0.6 < product.diagonal().mean() < -0.25
    others = product - torch.diag(product.diagonal())
    assert others.mean().abs() < 0.05
    assert abs(others.std() - 0.4 / product.shape[0] ** 0.5) < 0.02


@torch.no_grad()
def test_near_positions_are_alike() -> None:
    """Of the native 4x4 grid: the next place in a row and in a column, and the farthest one."""
    model = mimetic()
    assert model.positions is not None
    table = model.positions(torch.tensor([[4, 4]]), 16)[0]
    alike = torch.nn.functional.cosine_similarity(table, table[:1])
    assert alike[0] > alike[1] > alike[3] > alike[15]
    torch.testing.assert_close(alike[1], alike[4])
    assert len(torch.unique(table, dim=0)) == 16


@torch.no_grad()
def test_other_weights_and_relative_attention_stay() -> None:
    for variant in ("Femto/7", "Femto/7:relative"):
        before, after = tiny_model(variant=variant).state_dict(), mimetic(variant).state_dict()
        changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
        own = {"positions.table"} | {
            f"blocks.{i}.attention.{part}.weight" for i in (0, 1) for part in ("qkv", "project")
        }
        assert changed == (set() if "relative" in variant else own)


def test_the_seed_decides() -> None:
    for one, other in zip(mimetic().parameters(), mimetic().parameters(), strict=True):
        assert torch.equal(one, other)
