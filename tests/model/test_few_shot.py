"""Closed-form least squares against values computed by hand, and against a solver that does not know the formula."""

import numpy as np
import pytest
from scipy.optimize import minimize

from model.few_shot import draw_shots, fit, standardised


def test_one_feature_by_hand() -> None:
    # x = 0, 2 with targets -1, 1 for the second class. Centred: x = -1, 1, so w = 2 / (2 + l2), b = 0 - w * 1.
    found = fit(np.array([[0.0], [2.0]]), np.array([0, 1]), 2, l2=2.0)
    assert found.weights == pytest.approx(np.array([[-0.5, 0.5]]))
    assert found.bias == pytest.approx(np.array([0.5, -0.5]))
    assert found.scores(np.array([[4.0]])) == pytest.approx(np.array([[-1.5, 1.5]]))


def test_it_is_the_minimum_of_what_it_says() -> None:
    generator = np.random.default_rng(0)
    features, targets, l2 = generator.normal(size=(12, 3)), generator.integers(0, 2, 12), 0.7
    wanted = np.where(targets == 1, 1.0, -1.0)

    def objective(values: np.ndarray) -> float:
        return float(((features @ values[:3] + values[3] - wanted) ** 2).sum() + l2 * (values[:3] ** 2).sum())

    best = minimize(objective, np.zeros(4), tol=1e-12).x
    found = fit(features, targets, 2, l2)
    assert np.append(found.weights[:, 1], found.bias[1]) == pytest.approx(best, abs=1e-5)


def test_more_regularisation_makes_smaller_weights() -> None:
    features, targets = np.random.default_rng(1).normal(size=(10, 4)), np.arange(10) % 2
    sizes = [np.linalg.norm(fit(features, targets, 2, l2).weights) for l2 in (0.1, 10.0, 1000.0)]
    assert sizes == sorted(sizes, reverse=True)


def test_features_are_standardised_by_those_of_training() -> None:
    train, test = standardised(np.array([[0.0, 5.0], [4.0, 5.0]]), np.array([[6.0, 5.0]]))
    assert train.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert test.tolist() == [[2.0, 0.0]]


def test_shots_are_drawn_from_each_class() -> None:
    targets = np.array([0] * 10 + [1] * 10 + [2])
    chosen = draw_shots(targets, 3, seed=0)
    assert np.bincount(targets[chosen]).tolist() == [3, 3, 1]
    assert len(set(chosen.tolist())) == 7
    assert draw_shots(targets, 3, seed=1).tolist() != chosen.tolist()
