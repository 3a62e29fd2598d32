"""Similarity of positions on a tiny table."""

import pytest
import torch

from model.inspection.similarity import cosine_similarity, position_similarity
from model.variants import decode_variant
from model.vit import VisionTransformer


def test_it_is_the_cosine() -> None:
    vectors = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    half = 0.5**0.5
    expected = [[1, 0, -1, half, 0], [0, 1, 0, half, 0], [-1, 0, 1, -half, 0], [half, half, -half, 1, 0], [0] * 5]
    torch.testing.assert_close(cosine_similarity(vectors), torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("positions", ["1d", "2d"])
def test_each_patch_is_compared_with_each(positions: str) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(*decode_variant(f"Femto/7:{positions}"))
    similarity = position_similarity(model)
    assert similarity is not None
    assert similarity.shape == (4, 4, 4, 4)
    assert similarity[2, 3, 2, 3].item() == pytest.approx(1)
    assert similarity[0, 1, 2, 3].item() == pytest.approx(similarity[2, 3, 0, 1].item())
    if positions == "2d":  # patches of one row have half of their position in common
        same_row = similarity[1, :, 1, :].mean()
        assert same_row > similarity[1, :, 2, :].mean() + 0.2


@pytest.mark.parametrize("positions", ["none", "relative"])
def test_where_none_are_embedded_there_is_none(positions: str) -> None:
    assert position_similarity(VisionTransformer(*decode_variant(f"Femto/7:{positions}"))) is None
