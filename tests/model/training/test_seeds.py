"""Seeds follow from places alone, and near places have other ones."""

import torch

from model.training.seeds import generator_at, seed_of


def test_each_place_has_its_own_draws_and_always_the_same() -> None:
    places = [(seed, epoch, step) for seed in range(3) for epoch in range(3) for step in range(3)]
    draws = {tuple(torch.rand(2, generator=generator_at(*place)).tolist()) for place in places}
    assert len(draws) == len(places)
    assert seed_of(1, 2) == seed_of(1, 2) != seed_of(2, 1)
    assert 0 <= seed_of(0) < 2**63
