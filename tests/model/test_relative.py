"""Relative positions against a computation by hand, pair by pair; in every grid, alone and in a padded batch."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.architecture import ViTConfig
from model.attention import Attend, masked_attention, matmul_attention
from model.positions import axis_weights, find_places
from model.relative import RelativeAttention, behind_prefix

NATIVE = (3, 4)
CONFIG = ViTConfig(width=8, depth=1, heads=2, mlp_dim=8, positions="relative")
GRIDS = torch.tensor([[3, 4], [1, 1], [2, 5]])


def make_attention() -> RelativeAttention:
    torch.manual_seed(0)
    attention = RelativeAttention(CONFIG, NATIVE).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return attention


def attend(attention: RelativeAttention, tokens: Tensor, grids: Tensor, first: int | None = None) -> Tensor:
    """Of a class token and patches, `[B, 1 + N, D]`."""
    places = behind_prefix(find_places(grids, tokens.shape[1] - 1, NATIVE, "bicubic"), 1)
    return attention(tokens, grids.prod(1) + 1, first, places)


def by_hand(attention: RelativeAttention, tokens: Tensor, grid: tuple[int, int]) -> NDArray[np.float64]:
    """One image without padding: the logit of every pair is the content's plus those of its two offsets."""
    query, key, value = (
        part.detach().numpy().reshape(len(tokens), 2, 4).swapaxes(0, 1) for part in attention.qkv(tokens)
    )
    mixtures = [_mixture(grid[axis], NATIVE[axis]) for axis in (0, 1)]
    tables = [offsets.table.detach().numpy() for offsets in (attention.rows, attention.columns)]
    mixed = []
    for head in range(2):
        scores = query[head] @ key[head].T
        for i in range(1, len(tokens)):
            for j in range(1, len(tokens)):
                for axis, (own, other) in enumerate(zip(divmod(i - 1, grid[1]), divmod(j - 1, grid[1]), strict=True)):
                    embedding = _between(tables[axis][head], mixtures[axis][own], mixtures[axis][other])
                    scores[i, j] += query[head, i] @ embedding
        weights = np.exp(scores / 2)  # the root of 4 values a head
        mixed.append(weights / weights.sum(1, keepdims=True) @ value[head])
    joined = torch.from_numpy(np.concatenate(mixed, 1))
    return attention.project(joined).detach().numpy()


def _mixture(size: int, native: int) -> NDArray[np.float64]:
    """Each place along one axis as a mixture of native places; at the native size a place is itself."""
    index = torch.arange(size)[None].float()
    return axis_weights(index, torch.tensor([[float(size)]]), native, "bicubic")[0].double().numpy()


def _between(table: NDArray[np.float64], own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The embedding of the offset between two mixtures of places, `[d]`."""
    native = len(own)
    terms = [own[p] * other[a] * table[:, p - a + native - 1] for p in range(native) for a in range(native)]
    return np.sum(terms, axis=0)


@pytest.mark.parametrize("function", [masked_attention, matmul_attention])
def test_it_is_what_a_computation_by_hand_gives(function: Attend) -> None:
    attention = make_attention()
    attention.attend = function
    tokens = torch.randn(3, 13, 8, dtype=torch.float64)
    together = attend(attention, tokens, GRIDS).detach().numpy()
    for row, (rows, columns) in enumerate(GRIDS.tolist()):
        own = tokens[row, : 1 + rows * columns]
        np.testing.assert_allclose(together[row, : len(own)], by_hand(attention, own, (rows, columns)), atol=1e-6)


def test_an_offset_of_the_native_grid_has_an_embedding_of_its_own() -> None:
    assert np.array_equal(_mixture(3, 3), np.eye(3))
    table = np.arange(5.0)[None]
    assert _between(table, np.eye(3)[2], np.eye(3)[0]) == [4]  # two places on
    assert _between(table, np.eye(3)[0], np.eye(3)[2]) == [0]


def test_the_first_tokens_alone_are_the_same() -> None:
    attention, tokens = make_attention(), torch.randn(3, 13, 8, dtype=torch.float64)
    first = attend(attention, tokens, GRIDS, first=2)
    torch.testing.assert_close(first, attend(attention, tokens, GRIDS)[:, :2], atol=1e-12, rtol=0)


def test_places_are_needed() -> None:
    with pytest.raises(ValueError, match="needs the places"):
        make_attention()(torch.zeros(1, 2, 8, dtype=torch.float64), torch.tensor([2]))
