"""Mixtures of images: shares of pixels or of patches, and the same shares of labels."""

import pytest
import torch

from model.mixing import draw_share, mix, paste

GRID = (4, 6)


def two() -> tuple[torch.Tensor, torch.Tensor]:
    """A black image of the first class and a white one of the second."""
    patches = torch.zeros(2, 24, 12, dtype=torch.uint8)
    patches[1] = 255
    return patches, torch.eye(2)


def mixed(mixup: float, cutmix: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return mix(*two(), GRID, mixup, cutmix, torch.Generator().manual_seed(seed))


def test_without_mixing_nothing_is_drawn() -> None:
    patches, targets = two()
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert mix(patches, targets, GRID, 0.0, 0.0, generator) == (patches, targets)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("seed", range(8))
def test_mixup_mixes_pixels_and_labels_in_one_proportion(seed: int) -> None:
    patches, targets = mixed(0.8, 0.0, seed)
    assert patches.dtype == torch.uint8
    brightness = patches.float().mean((1, 2)) / 255
    assert torch.allclose(brightness, targets[:, 1], atol=1 / 255)
    assert torch.allclose(targets.sum(1), torch.ones(2))


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_exchanges_whole_patches_and_as_much_of_the_labels(seed: int) -> None:
    patches, targets = mixed(0.0, 1.0, seed)
    assert ((patches == patches[:, :, :1]).all(2)).all()
    assert torch.allclose(patches[:, :, 0].float().mean(1) / 255, targets[:, 1], atol=1e-6)


def test_what_cutmix_pastes_is_a_rectangle() -> None:
    patches, _ = two()
    changed, share = paste(patches, patches.flip(0), GRID, 0.5, torch.Generator().manual_seed(1))
    place = (changed[0, :, 0] > 0).view(GRID).nonzero()
    (top, left), (bottom, right) = place.min(0).values.tolist(), place.max(0).values.tolist()
    assert len(place) == (bottom - top + 1) * (right - left + 1) == 24 * (1 - share)


def test_shares_follow_the_beta_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([draw_share(0.2, generator) for _ in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.02)  # of Beta(0.2, 0.2)
