"""Straight lines through measurements: growth an hour, and exponents of power laws."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import theilslopes


def slope(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Least squares: the slope, and its standard error (0 for two points).

    Raises:
        ValueError: for fewer than two different x.
    """
    if len(set(xs)) < 2:
        raise ValueError("a line needs two different x")
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    x = x - x.mean()
    steepness = float(x @ (y - y.mean()) / (x @ x))
    residual = y - y.mean() - steepness * x
    freedom = len(xs) - 2
    return steepness, float(np.sqrt(residual @ residual / freedom / (x @ x))) if freedom else 0.0


def robust_slope(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Theil and Sen: the median slope of all pairs, and the lower end of its 95 % interval; short steps weigh little.

    Raises:
        ValueError: for fewer than two different x.
    """
    if len(set(xs)) < 2:
        raise ValueError("a line needs two different x")
    fit = theilslopes(ys, xs, 0.95)
    return float(fit.slope), float(fit.low_slope)


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The p of `y = c * x**p` that fits best."""
    return slope(np.log(xs).tolist(), np.log(ys).tolist())[0]


def exponents(xs: Sequence[float], ys: Sequence[float], factor: float = 10.0) -> list[tuple[float, float, float]]:
    """(from, to, p) for every stretch of x by `factor`; stretches share their ends, the last may be shorter."""
    pairs = sorted(zip(xs, ys, strict=True))
    stretches: list[tuple[float, float, float]] = []
    begin = 0
    while begin < len(pairs) - 1:
        end = max(
            (place for place in range(begin + 1, len(pairs)) if pairs[place][0] <= pairs[begin][0] * factor),
            default=begin + 1,
        )
        part = pairs[begin : end + 1]
        stretches.append((part[0][0], part[-1][0], exponent([x for x, _ in part], [y for _, y in part])))
        begin = end
    return stretches
