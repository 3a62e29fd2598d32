"""Tells a load that is a little too high from one of which most is refused.

Then somebody is always there to take the next place, so a long queue keeps nothing busy that a short one would not: it
only makes every answer late, and the overload outlasts its cause by the time that the queue takes. "Most" is more than
K = 2 requests for one that is accepted, as in "Handling Overload" of Google's "Site Reliability Engineering" (2016).

A few clients that ask again at once are refused a thousand times a second, and look like a crowd although all of them
would fit into the longer queue. So after some seconds the crowd is forgotten: a real one shows again within
milliseconds, and the queue is the longer one for no more than that.
"""

import math

_MEMORY_S = 1.0
_DOUBT_S = 5.0


class Crowd:
    """Counts who was accepted and who was refused of late. Pure; the clock's readings are arguments."""

    def __init__(self) -> None:
        self._accepted = 0.0
        self._refused = 0.0
        self._last_s = 0.0
        self._since_s: float | None = None  # when most began to be refused

    def accept(self, now_s: float) -> None:
        """One more was."""
        self._age(now_s)
        self._accepted += 1

    def refuse(self, now_s: float) -> None:
        """One more was."""
        self._age(now_s)
        self._refused += 1

    def is_mostly_refused(self, now_s: float) -> bool:
        """Whether more than half are; a single one is no crowd, and none is believed for longer than five seconds."""
        self._age(now_s)
        if self._refused <= self._accepted + 1:
            self._since_s = None
            return False
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < _DOUBT_S:
            return True
        self._accepted = self._refused = 0.0
        self._since_s = None
        return False

    def _age(self, now_s: float) -> None:
        keep = math.exp(-max(0.0, now_s - self._last_s) / _MEMORY_S)
        self._accepted, self._refused, self._last_s = self._accepted * keep, self._refused * keep, now_s
