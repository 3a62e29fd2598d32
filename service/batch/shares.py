"""Which of several engines classifies which parts: pure, no process, no pipe."""

from collections import deque
from collections.abc import Sequence


class Shares:
    """Parts that wait, a run of neighbours for each engine; who has finished his own takes from the end of the longest.

    Neighbours, because who goes on in a Parquet file need not read again what comes before in its row group.

    Args:
        parts: in order.
        engines: how many.
    """

    def __init__(self, parts: Sequence[int], engines: int) -> None:
        ends = [place * len(parts) // engines for place in range(engines + 1)]
        self._waiting = [deque(parts[ends[place] : ends[place + 1]]) for place in range(engines)]

    def take(self, engine: int) -> int | None:
        """The next part of an engine, counted from 0; None: there is none for anybody."""
        if own := self._waiting[engine]:
            return own.popleft()
        longest = max(self._waiting, key=len)
        return longest.pop() if longest else None
