"""Augmentation draws what it says, keeps budgets, and cuts patches exactly as serving does."""

import numpy as np
import pytest
import torch

from model.augment import Augmentation, augment, calm, draw_grid, to_patches
from model.manifest import Preprocessing
from model.preprocess import patchify

SPEC = Preprocessing(patch_size=4, native_grid=(7, 7), max_patches=100, resize="aspect")
PLAIN = Augmentation(zoom=(1.0, 1.0), stretch=1.0, shift=0.0, flip=False)


def test_patches_are_those_of_serving() -> None:
    pixels = torch.randint(0, 256, (2, 3, 12, 20), dtype=torch.uint8)
    cut = to_patches(pixels, 4)
    for image, patches in zip(pixels, cut, strict=True):
        assert np.array_equal(patchify(image.permute(1, 2, 0).numpy(), 4), patches.numpy())


def test_grids_keep_the_budget_and_vary() -> None:
    generator = torch.Generator().manual_seed(0)
    grids = [draw_grid(SPEC, Augmentation(), generator) for _ in range(500)]
    assert all(rows >= 1 and columns >= 1 and rows * columns <= 100 for rows, columns in grids)
    native = sum(grid == (7, 7) for grid in grids) / 500
    assert 0.4 < native < 0.6
    assert any(rows > columns for rows, columns in grids)
    assert any(rows < columns for rows, columns in grids)
    assert max(rows * columns for rows, columns in grids) > 80


def test_without_variation_the_native_image_passes_unchanged() -> None:
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    patches = augment(images, (7, 7), 4, PLAIN, torch.Generator())
    expected = to_patches(images.expand(-1, 3, -1, -1), 4)
    assert (patches.int() - expected.int()).abs().max() <= 1


def test_the_same_seed_gives_the_same_batch() -> None:
    images = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    varied = Augmentation(recolour=0.5)
    one, two = (augment(images, (5, 8), 4, varied, torch.Generator().manual_seed(3)) for _ in range(2))
    other = augment(images, (5, 8), 4, varied, torch.Generator().manual_seed(4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("grid", [(7, 7), (3, 5), (10, 10), (1, 1), (2, 12)])
def test_every_grid_gives_its_patches(grid: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, 28, 28), dtype=torch.uint8)
    patches = augment(images, grid, 4, Augmentation(), torch.Generator().manual_seed(0))
    assert patches.shape == (2, grid[0] * grid[1], 48)
    assert patches.dtype == torch.uint8


def test_recolouring_keeps_some_inverts_some_and_paints_some() -> None:
    black = torch.zeros(200, 1, 28, 28, dtype=torch.uint8)
    patches = augment(black, (7, 7), 4, Augmentation(recolour=0.5), torch.Generator().manual_seed(0))
    backgrounds = patches[:, 0, :3].tolist()
    assert 70 < backgrounds.count([0, 0, 0]) < 130
    assert 25 < backgrounds.count([255, 255, 255]) < 80
    assert len({tuple(colour) for colour in backgrounds}) > 20


def test_the_end_of_training_is_calm_but_not_still() -> None:
    calmed = calm(Augmentation(zoom=(0.5, 2.0), recolour=0.4))
    assert 0.8 < calmed.zoom[0] < 1 < calmed.zoom[1] < 1.2
    assert calmed.recolour == pytest.approx(0.1)
    assert calmed.native_share == 0.75
    black = torch.zeros(400, 1, 28, 28, dtype=torch.uint8)
    patches = augment(black, (7, 7), 4, calmed, torch.Generator().manual_seed(0))
    assert 330 < patches[:, 0, :3].tolist().count([0, 0, 0]) < 395
