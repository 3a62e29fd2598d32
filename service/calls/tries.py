"""When a call is made again, and after how long: a decision without clock, sleep or socket of its own.

Again only where nothing was begun: the service refused because of load (429, 503), or no reply came at all because the
connection could not be made or broke. An attempt that timed out is never repeated: the service may still be at work on
it, and the load that made it late would grow. Classification changes nothing, so a repeated one does no harm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from service.calls.failures import Busy, CallError, NoConnection, ServiceError, Unavailable


@dataclass(frozen=True, slots=True)
class Retries:
    """How patient a client is.

    Attributes:
        attempts: at most, the first one included; 1: none is repeated.
        total_s: from the first attempt to the end of the last pause; a pause that would end later is not begun.
        first_pause_s: bound of the first pause where the service did not say how long; it doubles each time.
        longest_pause_s: where the doubling ends.
        spread: share of a `Retry-After` that is added at random, so that all who were refused do not come at once.
    """

    attempts: int = 5
    total_s: float = 30.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 5.0
    spread: float = 0.25

    def __post_init__(self) -> None:
        wrong = self.attempts < 1 or min(self.first_pause_s, self.longest_pause_s, self.spread) < 0
        if wrong or self.total_s <= 0:
            raise ValueError("attempts must be at least 1, total_s above 0, pauses and spread at least 0")


NEVER = Retries(attempts=1)


def pause_s(retries: Retries, failure: CallError, attempt: int, draw: float) -> float:
    """The pause after a failed attempt, seconds: never less than the service asked for.

    Args:
        retries: the patience.
        failure: of this attempt.
        attempt: from 1.
        draw: a random number from 0 to 1.
    """
    asked_s = failure.retry_after_s if isinstance(failure, ServiceError) else None
    if asked_s is not None:
        return asked_s + draw * retries.spread * max(asked_s, retries.first_pause_s)
    return draw * min(retries.longest_pause_s, retries.first_pause_s * 2.0 ** (attempt - 1))


class Tries:
    """The attempts of one call; each stands in a `with` block, which swallows a failure that is tried again.

        tries = Tries(retries, timeout_s, clock, draw, translate)
        while True:
            with tries:
                return ask(tries.timeout_s)
            sleep(tries.pause_s)

    Args:
        retries: the patience.
        timeout_s: of one attempt.
        clock: monotonic, seconds.
        draw: gives random numbers from 0 to 1.
        translate: from an exception of the HTTP library to ours; None leaves it as it is.
    """

    def __init__(
        self,
        retries: Retries,
        timeout_s: float,
        clock: Callable[[], float],
        draw: Callable[[], float],
        translate: Callable[[BaseException], CallError | None],
    ) -> None:
        self._retries = retries
        self._timeout_s = timeout_s
        self._clock = clock
        self._draw = draw
        self._translate = translate
        self._until_s = clock() + retries.total_s
        self._replied = False
        self.attempt = 0
        self.pause_s = 0.0

    @property
    def timeout_s(self) -> float:
        """What this attempt may take, seconds: no repeated one goes beyond the total."""
        if self.attempt == 1:
            return self._timeout_s
        return max(0.001, min(self._timeout_s, self._until_s - self._clock()))

    def reply_begins(self) -> None:
        """From here on a broken connection is no reason to ask again."""
        self._replied = True

    def __enter__(self) -> "Tries":
        self.attempt += 1
        self._replied = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        failure = None if error is None else error if isinstance(error, CallError) else self._translate(error)
        if failure is None:
            return False
        failure.attempts = self.attempt
        if not self._again(failure):
            if failure is error:
                return False
            raise failure from error
        return True

    def _again(self, failure: CallError) -> bool:
        welcome = isinstance(failure, Busy | Unavailable) or (isinstance(failure, NoConnection) and not self._replied)
        if not welcome or self.attempt >= self._retries.attempts:
            return False
        self.pause_s = pause_s(self._retries, failure, self.attempt, self._draw())
        return self._clock() + self.pause_s <= self._until_s
