"""Where the process stands between its start and its end."""

import enum
from collections.abc import Callable


class Phase(enum.IntEnum):
    """Phases in order; they only go forward."""

    STARTING = 0
    SERVING = 1
    DRAINING = 2  # told to stop: not ready for a load balancer, still serving
    CLOSING = 3  # finishing what was accepted, taking nothing new


class Lifecycle:
    """The phase, written by the server and read by the routes.

    Args:
        engine_up: whether there is an engine; while there is none, a service that has started is starting again.
    """

    def __init__(self, engine_up: Callable[[], bool] = lambda: True) -> None:
        self._engine_up = engine_up
        self._phase = Phase.STARTING

    @property
    def phase(self) -> Phase:
        """The phase now."""
        return self._phase if self._phase != Phase.SERVING or self._engine_up() else Phase.STARTING

    def advance(self, phase: Phase) -> None:
        """Go on to a later phase; going back is ignored."""
        self._phase = max(self._phase, phase)
