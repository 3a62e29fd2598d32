import numpy as np
import pytest

from service.bench.arrivals import poisson_arrivals


def test_arrivals_are_those_of_a_poisson_process() -> None:
    due = np.array(poisson_arrivals(100, 200, seed=1))
    gaps = np.diff(due)
    assert len(due) == pytest.approx(20_000, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)  # of an exponential distribution they are equal
    assert due[0] >= 0
    assert due[-1] < 200
    assert (gaps >= 0).all()


def test_a_seed_says_which() -> None:
    assert poisson_arrivals(5, 10, seed=1) == poisson_arrivals(5, 10, seed=1) != poisson_arrivals(5, 10, seed=2)
