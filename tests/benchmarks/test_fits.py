import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fits import exponent, exponents, robust_slope, slope


def test_a_robust_slope_ignores_a_step_and_tells_its_least() -> None:
    xs = [float(each) for each in range(100)]
    ys = [2 * x - 50 * (60 < x < 75) for x in xs]
    steepness, least = robust_slope(xs, ys)
    assert steepness == pytest.approx(2)
    assert least <= 2
    with pytest.raises(ValueError, match="two different x"):
        robust_slope([3, 3], [1, 2])


def test_a_line_has_its_own_slope_and_no_error() -> None:
    assert slope([1, 2, 5], [3, 5, 11]) == pytest.approx((2, 0))


def test_the_error_of_the_slope_is_that_of_a_textbook() -> None:
    # x = 1..5, y = 2 4 5 4 5: slope 0.6, residual sum of squares 2.4, so sqrt(2.4 / 3 / 10).
    assert slope([1, 2, 3, 4, 5], [2, 4, 5, 4, 5]) == pytest.approx((0.6, 0.08**0.5))


def test_a_line_through_one_x_is_refused() -> None:
    with pytest.raises(ValueError, match="two different x"):
        slope([3, 3, 3], [1, 2, 3])


@given(st.floats(-3, 3), st.floats(0.001, 1000))
def test_the_exponent_of_a_power_law_is_found(power: float, factor: float) -> None:
    xs = [1.0, 4.0, 16.0, 100.0]
    assert exponent(xs, [factor * x**power for x in xs]) == pytest.approx(power, abs=1e-6)


def test_each_stretch_has_its_own_exponent() -> None:
    xs = [1, 2, 5, 10, 20, 50, 100]
    ys = [min(x, 10) * max(1, x / 10) ** 2 for x in xs]  # linear to 10, then quadratic
    found = exponents(xs, ys)
    assert [(low, high) for low, high, _ in found] == [(1, 10), (10, 100)]
    assert np.allclose([power for _, _, power in found], [1, 2])


def test_a_stretch_that_is_longer_than_the_factor_still_counts() -> None:
    assert [(low, high) for low, high, _ in exponents([1, 50, 60], [1, 50, 60])] == [(1, 50), (50, 60)]
