"""Engines that show since when the oldest run of any of them goes on, so that somebody else can tell if it hangs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from service.extras import Answers, Extras
from service.runner import ArrayEngine


class Runs:
    """The runs that are under way, of all models; thread-safe.

    Args:
        clock: monotonic, seconds.
        show: is told when the oldest of them began, on the clock; 0: there is none.
    """

    def __init__(self, clock: Callable[[], float], show: Callable[[float], None] = lambda _: None) -> None:
        self._clock = clock
        self._show = show
        self._lock = threading.Lock()
        self._started_s: dict[object, float] = {}

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """From its beginning to its end, however it ends."""
        run = object()
        with self._lock:
            self._started_s[run] = self._clock()
            self._show_oldest()
        try:
            yield
        finally:
            with self._lock:
                del self._started_s[run]
                self._show_oldest()

    def running_s(self, now_s: float) -> float:
        """How long the oldest run has been going on, seconds; 0 if none is."""
        with self._lock:
            return max((now_s - started_s for started_s in self._started_s.values()), default=0.0)

    def _show_oldest(self) -> None:
        self._show(min(self._started_s.values(), default=0.0))


class WatchedEngine:
    """Passes runs on. Args: runs batches, perhaps several at a time; and where its runs are kept."""

    def __init__(self, engine: ArrayEngine, runs: Runs) -> None:
        self._engine = engine
        self._runs = runs

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        """As the engine's own."""
        with self._runs.one_more():
            return self._engine.run(patches, grid, alone=alone)

    def infer(
        self, patches: NDArray[np.uint8], grid: NDArray[np.int64], extras: Extras, *, alone: bool = True
    ) -> Answers:
        """As the engine's own."""
        with self._runs.one_more():
            return self._engine.infer(patches, grid, extras, alone=alone)
