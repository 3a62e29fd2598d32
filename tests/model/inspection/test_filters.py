"""Principal components of filters that were made from known ones."""

import pytest
import torch

from model.inspection.filters import first_filters, principal_components
from model.variants import decode_variant
from model.vit import VisionTransformer


def test_components_are_the_directions_in_which_filters_differ() -> None:
    first, second = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    first[0, 0, 0], second[1, 1, 2] = 1, 1
    constant = torch.full((2, 2, 3), 5.0)  # what all filters share is no difference
    filters = torch.stack([constant + a * first + b * second for a, b in ((3, 0), (-3, 0), (0, 1), (0, -1))])
    components, shares = principal_components(filters, count=2)
    torch.testing.assert_close(components, torch.stack([first, second]), atol=1e-6, rtol=0)
    assert shares.tolist() == pytest.approx([0.9, 0.1])


def test_there_are_as_many_as_asked_for_or_as_there_are() -> None:
    filters = torch.randn(5, 2, 2, 3)
    assert principal_components(filters)[0].shape == (5, 2, 2, 3)
    assert principal_components(torch.randn(64, 4, 4, 3))[0].shape == (28, 4, 4, 3)


@pytest.mark.parametrize(("variant", "shape"), [("Femto/7", (64, 7, 7, 3)), ("R8+Femto/8", (64, 7, 7, 3))])
def test_filters_are_of_what_reads_pixels(variant: str, shape: tuple[int, ...]) -> None:
    assert first_filters(VisionTransformer(*decode_variant(variant))).shape == shape


def test_a_filter_is_in_the_order_of_its_patch() -> None:
    model = VisionTransformer(*decode_variant("Femto/4"))
    filters = first_filters(model)
    weight = model.embedding.project.weight  # type: ignore[union-attr]
    assert filters[3, 1, 2, 0] == weight[3, (1 * 4 + 2) * 3]
