"""An engine that shows since when its oldest run goes on, so that somebody else can tell if it hangs."""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.runner import ArrayEngine


class WatchedEngine:
    """Passes runs on; thread-safe.

    A run shows once it may be `seen`: a warm-up may build kernels for minutes.

    Args:
        engine: runs batches, perhaps several at a time.
        clock: monotonic, seconds.
        show: is told when the oldest run under way began, on the clock; 0: none is.
    """

    def __init__(
        self, engine: ArrayEngine, clock: Callable[[], float], show: Callable[[float], None] = lambda _: None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._show = show
        self._lock = threading.Lock()
        self._started_s: dict[object, float] = {}
        self.seen = False

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        """As the engine's own."""
        if not self.seen:
            return self._engine.run(patches, grid, alone=alone)
        run = object()
        with self._lock:
            self._started_s[run] = self._clock()
            self._show_oldest()
        try:
            return self._engine.run(patches, grid, alone=alone)
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
