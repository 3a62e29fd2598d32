"""How often each key may ask: fixed windows, counted by all HTTP processes together.

The library `limits` decides; what it counts in is ours, because its own memory counts in one process only, with a
thread and the clock that people set. Connections are dealt out among processes by the kernel, so that a share of the
limit for each of them would stop a client with one connection far below its limit.

Every process writes cells of its own and reads those of all, as on the board (`service.processes.board`): no lock, so
none is left locked by a process that dies. Of two requests that come at the same moment to two processes, each may
count the other: at the limit both are refused, but never is one too many let in.
"""

import math
import mmap
from collections.abc import Callable, Sequence

import numpy as np
from limits import parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from numpy.typing import NDArray

from service.errors import RateLimited
from service.keys import Key

_COUNT_BITS = 24
_MOST = (1 << _COUNT_BITS) - 1


class Rates:
    """The limits of all keys, counted in the cells of one process.

    Args:
        keys: all; those without a rate are not counted.
        processes: how many will count.
        clock: monotonic, the same in all processes, seconds.
    """

    def __init__(self, keys: Sequence[Key], processes: int, clock: Callable[[], float]) -> None:
        self._limits = {key.name: parse(key.rate) for key in keys if key.rate is not None}
        # Shared with every process forked from this one. A cell is the number of a window and what was counted in it.
        memory = mmap.mmap(-1, 8 * processes * max(1, len(self._limits)))
        self._cells: NDArray[np.int64] = np.frombuffer(memory, np.int64).reshape(processes, -1)
        self._clock = clock
        self.count_as(0)

    def count_as(self, row: int) -> None:
        """In a process of several: which of them it is, from 0."""
        places = {
            limit.key_for(name): (column, limit.get_expiry())
            for column, (name, limit) in enumerate(self._limits.items())
        }
        self._limiter = FixedWindowRateLimiter(_Windows(self._cells, row, places, self._clock))

    def count(self, key: Key) -> None:
        """One more request of this key.

        Raises:
            RateLimited: if it is one too many; then with the time until the next window, which begins at zero.
        """
        limit = self._limits.get(key.name)
        if limit is not None and not self._limiter.hit(limit, key.name):
            left_s = self._limiter.get_window_stats(limit, key.name).reset_time - self._clock()
            raise RateLimited(max(1, math.ceil(left_s)))


class _Windows(Storage):
    """The storage of `limits`: counters that begin anew with every window.

    Args:
        cells: int64 [processes, keys].
        row: the cells that this process writes.
        places: column and length of the window in seconds, by the library's name of a counter.
        clock: monotonic, seconds.
    """

    STORAGE_SCHEME = None
    base_exceptions = ()

    def __init__(
        self, cells: NDArray[np.int64], row: int, places: dict[str, tuple[int, int]], clock: Callable[[], float]
    ) -> None:
        super().__init__()
        self._cells = cells
        self._row = row
        self._places = places
        self._clock = clock

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, and say how many that makes in all processes."""
        column, window = self._places[key][0], self._window(key)
        mine = int(self._cells[self._row, column])
        counted = mine & _MOST if mine >> _COUNT_BITS == window else 0
        self._cells[self._row, column] = window << _COUNT_BITS | min(counted + amount, _MOST)
        return self._sum(column, window)

    def get(self, key: str) -> int:
        """What is counted in this window."""
        return self._sum(self._places[key][0], self._window(key))

    def get_expiry(self, key: str) -> float:
        """When the window ends, in the seconds of the clock."""
        return (self._window(key) + 1) * float(self._places[key][1])

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int | None:
        """Forget what this process has counted."""
        self._cells[self._row] = 0
        return None

    def clear(self, key: str) -> None:
        """Forget what this process has counted of one key."""
        self._cells[self._row, self._places[key][0]] = 0

    def _window(self, key: str) -> int:
        return int(self._clock() // self._places[key][1])

    def _sum(self, column: int, window: int) -> int:
        cells = self._cells[:, column]
        return int((cells & _MOST)[cells >> _COUNT_BITS == window].sum())
