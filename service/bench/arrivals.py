"""When requests of an open loop are due: random gaps, as independent callers leave them."""

import numpy as np


def poisson_arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Times from 0 to `seconds` of a Poisson process.

    Args:
        rate: requests per second, on average.
        seconds: length.
        seed: the same number gives the same times.
    """
    draw = np.random.default_rng(seed)
    # Six standard deviations more than expected; were even those too few, the end would come early.
    count = int(rate * seconds + 6 * (rate * seconds) ** 0.5 + 10)
    times = np.cumsum(draw.exponential(1 / rate, count))
    due: list[float] = times[times < seconds].tolist()
    return due
