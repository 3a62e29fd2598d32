"""A pace for refusals: who is refused and asks again at once is read more slowly.

A refusal is cheap, but clients that ignore `Retry-After` can ask for thousands a second, and the event loop then takes
the time of decoding and of the engine: less is answered, more is refused. Up to a pace nobody notices anything; above
it a connection that has just been refused is not read for a moment. Its reply has been sent, and nothing is lost.
"""

_PER_S = 1000.0  # at 0.14 CPU-ms each, a seventh of one core
_BURST_S = 0.05  # of refusals at this pace, one after the other
_LONGEST_S = 1.0  # `Retry-After` is never less


class RefusalPace:
    """Tells how long each refused connection rests; the refusals of one process are counted together. Pure."""

    def __init__(self) -> None:
        self._due_s = 0.0  # when all refusals until now would be over at this pace

    def rest_s(self, now_s: float) -> float:
        """Count one refusal; how long its connection is not read, seconds. Usually 0."""
        self._due_s = min(max(self._due_s, now_s) + 1 / _PER_S, now_s + _BURST_S + _LONGEST_S)
        return max(0.0, self._due_s - now_s - _BURST_S)
