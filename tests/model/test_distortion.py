"""Distortions keep shape and type, depend on the generator alone, and do what they say."""

import pytest
import torch

from model.distortion import distort, erase

PIXELS = torch.randint(256, (20, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_same_seed_distorts_alike_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, two = (distort(PIXELS, 9, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two)
    assert one.shape == PIXELS.shape
    assert one.dtype == torch.uint8
    assert not torch.equal(one, PIXELS)
    assert not torch.equal(one, distort(PIXELS, 9, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_erasing_covers_a_rectangle_in_a_share_of_the_images(share: float, least: int, most: int) -> None:
    black = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    erased = (erase(black, share, torch.Generator().manual_seed(0)) > 0).any(1)  # [B, h, w]
    touched = erased.flatten(1).any(1)
    assert least <= int(touched.sum()) <= most
    for image in erased[touched]:
        place = image.nonzero()
        height, width = (place.max(0).values - place.min(0).values + 1).tolist()
        assert 0.01 <= height * width / 32**2 <= 0.4
