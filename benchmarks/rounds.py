"""Repetitions side by side: A B C A B C, so that a slow second of the machine falls on all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def interleave(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work, one per round; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over the rounds of one measurement by another of the same round."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))
