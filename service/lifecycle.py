"""Where the process stands between its start and its end."""

import enum
from collections.abc import Callable

from service.errors import DeviceLost, Draining, NotReady, Unavailable


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
        self._failure: type[Unavailable] | None = None
        self.loop_turns: Callable[[], bool] = lambda: True  # whether the event loop is in time

    @property
    def phase(self) -> Phase:
        """The phase now."""
        return self._phase if self._phase != Phase.SERVING or self._engine_up() else Phase.STARTING

    def require(self, able: Callable[[], bool]) -> None:
        """Another part without which nobody can be served."""
        before = self._engine_up
        self._engine_up = lambda: before() and able()

    def advance(self, phase: Phase) -> None:
        """Go on to a later phase; going back is ignored."""
        self._phase = max(self._phase, phase)

    @property
    def ending(self) -> bool:
        """Whether it was told to stop."""
        return self._phase >= Phase.DRAINING

    @property
    def failed(self) -> bool:
        """Whether this process ends because of a failure."""
        return self._failure is not None

    def fail(self, refusal: type[Unavailable] = DeviceLost) -> None:
        """Nothing new can be answered any more: the server ends, with a status that says so.

        Args:
            refusal: what requests get from now on.
        """
        self._failure = self._failure or refusal

    @property
    def refusal(self) -> Unavailable | None:
        """Why no request is taken now; None: they are."""
        if self._failure is not None:
            return self._failure()
        phase = self.phase
        if phase == Phase.STARTING:
            return NotReady()
        return Draining() if phase == Phase.CLOSING else None

    @property
    def unready(self) -> Unavailable | None:
        """Why a load balancer should look elsewhere; None: it should not."""
        if refusal := self.refusal:
            return refusal
        if self.phase == Phase.DRAINING:
            return Draining()
        return None if self.loop_turns() else NotReady()
