"""Recipes refuse what cannot be, and have defaults that suit the start."""

from typing import Any

import pytest
from shades import tiny_run

from model.training.recipe import Recipe, default_batch, recipe_of
from model.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 10, "accumulate": 3}, "--batch 10 cannot be split into 3 equal parts"),
        ({"drop_path": 1.0}, "--drop-path must be from 0 to below 1, not 1.0"),
        ({"ema_decay": -0.1}, "--ema-decay must be"),
        ({"label_smoothing": 2}, "--label-smoothing must be"),
        ({"teacher_weight": 1.1}, "--teacher-weight must be from 0 to 1, not 1.1"),
        ({"temperature": 0}, "--temperature must be above 0, not 0"),
    ],
)
def test_a_wrong_number_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**wrong)


def test_fine_tuning_is_the_papers_sgd_and_scratch_is_adamw() -> None:
    tuned, scratch = recipe_of(fine_tuning=True), recipe_of(fine_tuning=False)
    assert (tuned.optimizer, tuned.weight_decay, tuned.momentum) == ("sgd", 0.0, 0.9)
    assert scratch == Recipe()
    assert recipe_of(fine_tuning=True, optimizer="adamw", learning_rate=0.5).learning_rate == 0.5


@pytest.mark.parametrize(
    ("images", "parts", "batch"), [(100_000, 1, 256), (60, 1, 8), (400, 3, 48), (5, 1, 8), (9, 16, 16)]
)
def test_a_small_set_has_small_batches(images: int, parts: int, batch: int) -> None:
    assert default_batch(images, parts) == batch


def test_the_learning_rate_warms_up_then_falls_to_one_percent() -> None:
    rates = [learning_rate(step, 1000, Recipe(learning_rate=1.0)) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == pytest.approx(1.0) == rates[50]
    assert rates[51:] == sorted(rates[51:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)


def test_weight_decay_is_on_matrices_alone() -> None:
    run = tiny_run()
    decayed, others = run.optimizer.param_groups
    assert all(weight.ndim == 2 for weight in decayed["params"])
    assert others["weight_decay"] == 0
    assert any(weight is run.model.positions.table for weight in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(run.model.parameters()))
