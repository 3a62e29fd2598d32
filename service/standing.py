"""Tells a burst, which a queue is for, from a queue that stands.

A queue that has not been nearly empty for a while absorbs nothing: it only makes every answer late, and the overload
outlasts its cause by the time that the queue takes. (Nichols and Jacobson, "Controlling Queue Delay", 2012.)
"""


class StandingQueue:
    """Watches the wait that requests are told. Pure; the clock's readings are arguments.

    Args:
        calm_s: a wait below this is no queue, seconds.
        patience_s: how long a wait may be above it before the queue stands, seconds.
    """

    def __init__(self, calm_s: float, patience_s: float) -> None:
        self._calm_s = calm_s
        self._patience_s = patience_s
        self._busy_since_s: float | None = None

    def stands(self, wait_s: float, now_s: float) -> bool:
        """Note the present wait; whether it has been long for too long.

        It ends only when the wait is short again, not when it is merely shorter: or the queue would fill up anew.
        """
        if wait_s <= self._calm_s:
            self._busy_since_s = None
        elif self._busy_since_s is None:
            self._busy_since_s = now_s
        return self._busy_since_s is not None and now_s - self._busy_since_s > self._patience_s
