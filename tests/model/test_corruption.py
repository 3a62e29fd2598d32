"""Corruption: exact shares, one kind a patch, nothing on padding; others are really others."""

import torch

from model.corruption import corrupt, draw_corruption, draw_others

LENGTHS = torch.tensor([20, 1, 2, 49, 50])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_half_of_each_image_is_corrupted_by_80_10_10() -> None:
    corruption = draw_corruption(LENGTHS, 50, seeded())
    shares = [each.sum(1).tolist() for each in (corruption.masked, corruption.replaced, corruption.kept)]
    assert corruption.corrupted.sum(1).tolist() == [10, 1, 1, 25, 25]
    assert shares == [[8, 1, 1, 20, 20], [1, 0, 0, 3, 3], [1, 0, 0, 2, 2]]  # halves upward: 22.5 of 25 is 23


def test_at_most_one_thing_is_done_to_a_patch_and_nothing_to_padding() -> None:
    corruption = draw_corruption(LENGTHS, 60, seeded())
    kinds = torch.stack([corruption.masked, corruption.replaced, corruption.kept]).int().sum(0)
    assert torch.equal(kinds, corruption.corrupted.int())
    padding = torch.arange(60) >= LENGTHS[:, None]
    assert not corruption.corrupted[padding].any()


def test_every_patch_is_as_likely_to_be_corrupted() -> None:
    corruption = draw_corruption(torch.full((4000,), 6), 6, seeded())
    torch.testing.assert_close(corruption.corrupted.float().mean(0), torch.full((6,), 0.5), atol=0.03, rtol=0)


def test_another_patch_is_any_valid_one_of_the_batch_but_itself() -> None:
    lengths, patches = torch.tensor([3, 1]), 4
    draws = torch.stack([draw_others(lengths, patches, seeded(seed)) for seed in range(200)])
    own = torch.arange(8).view(2, 4)
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 0)):
        assert set(draws[:, row, column].tolist()) == {0, 1, 2, 4} - {int(own[row, column])}
    assert draw_others(torch.tensor([1]), 1, seeded()).tolist() == [[0]], "alone in the world"


def test_masks_and_others_take_the_place_of_patches() -> None:
    embedded = torch.arange(8.0).view(1, 4, 2)
    corruption = draw_corruption(torch.tensor([4]), 4, seeded())
    replaced = torch.tensor([[False, True, False, False]])
    corruption = type(corruption)(torch.tensor([[True, False, False, False]]), replaced, replaced.roll(1))
    others = torch.tensor([[3, 3, 3, 0]])
    changed = corrupt(embedded, corruption, torch.tensor([-1.0, -2.0]), others)
    assert changed.tolist() == [[[-1, -2], [6, 7], [4, 5], [6, 7]]]
