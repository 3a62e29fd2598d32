"""The event loop's pulse: tells four times a second that it turns, and who else wants to know the time.

A loop that is blocked cannot say so itself, so a thread listens to the pulse.
"""

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

from structlog.typing import FilteringBoundLogger

from service.metrics import Metrics

_INTERVAL_S = 0.25
_STALLED_S = 2.0


class Heartbeat:
    """One for each process that serves HTTP.

    Args:
        clock: monotonic, seconds.
        metrics: where stalls are counted.
        log: where a stall is described.
        listeners: called at every beat with the time on the clock, seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        metrics: Metrics,
        log: FilteringBoundLogger,
        listeners: Sequence[Callable[[float], None]] = (),
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._listeners = listeners
        self._last_s = float("inf")  # opening a model may take long: before the first beat nothing is late
        self._ended = threading.Event()

    @property
    def in_time(self) -> bool:
        """Whether the loop has turned within the last two seconds, or has not begun to beat."""
        return self._clock() - self._last_s <= _STALLED_S

    async def beat(self) -> None:
        """Beat until cancelled."""
        self._last_s = self._clock()
        watcher = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="watchdog", daemon=True)
        watcher.start()
        try:
            while True:
                self._last_s = self._clock()
                for listener in self._listeners:
                    listener(self._last_s)
                await asyncio.sleep(_INTERVAL_S)
        finally:
            self._ended.set()

    def _watch(self, loop_thread: int) -> None:
        """Describe each stall once, while it lasts: afterwards nobody knows what it was."""
        told = False
        while not self._ended.wait(_INTERVAL_S):
            if self.in_time:
                told = False
            elif not told:
                told = True
                self._metrics.loop_stalls.inc()
                frame = sys._current_frames().get(loop_thread)
                stack = [f"{each.name}:{each.lineno}" for each in traceback.extract_stack(frame)] if frame else []
                self._log.error("event_loop_stalled", seconds=_STALLED_S, stack=stack[-10:])
