from collections.abc import Callable

import pytest

from service.calls.failures import Busy, CallError, ImageRefused, NoConnection, TimedOut, TooLate, Unavailable
from service.calls.tries import NEVER, Retries, Tries, pause_s


class Clock:
    """A virtual one: only pauses and attempts take time."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def busy(retry_after_s: float | None = None) -> Busy:
    return Busy(429, "overloaded", "Too much.", "id", retry_after_s)


def failing(*failures: CallError, retries: Retries, draw: float = 1.0, each_s: float = 0.0) -> tuple[list[float], int]:
    """Make a call whose attempts fail with these, then succeed; the pauses, and how many attempts there were."""
    clock, pauses, left = Clock(), [], iter(failures)
    tries = Tries(retries, 10.0, clock, lambda: draw, lambda _: None)
    while True:
        with tries:
            clock.now_s += each_s
            if (failure := next(left, None)) is not None:
                raise failure
            return pauses, tries.attempt
        pauses.append(tries.pause_s)
        clock.now_s += tries.pause_s


@pytest.mark.parametrize(
    "failure", [busy(), Unavailable(503, "draining", "Later."), NoConnection("refused"), busy(0.0)], ids=repr
)
def test_what_was_not_begun_is_tried_again(failure: CallError) -> None:
    assert failing(failure, retries=Retries())[1] == 2


@pytest.mark.parametrize(
    "failure",
    [
        TimedOut("slow"),
        TooLate(504, "deadline_exceeded", "Late."),
        ImageRefused(422, "invalid_image", "Broken."),
        CallError("else"),
    ],
    ids=repr,
)
def test_what_may_have_been_begun_or_will_never_do_is_not(failure: CallError) -> None:
    with pytest.raises(CallError) as raised:
        failing(failure, retries=Retries())
    assert raised.value is failure
    assert failure.attempts == 1


def test_the_pause_is_never_shorter_than_the_service_asked_for() -> None:
    for draw in (0.0, 0.5, 1.0):
        pauses, _ = failing(busy(3.0), busy(2.0), retries=Retries(spread=0.25), draw=draw)
        assert pauses == [3.0 + draw * 0.75, 2.0 + draw * 0.5]


def test_without_a_word_of_the_service_pauses_double_up_to_a_bound() -> None:
    retries = Retries(attempts=6, total_s=100, first_pause_s=1, longest_pause_s=4)
    assert failing(*[NoConnection("x")] * 5, retries=retries)[0] == [1, 2, 4, 4, 4]
    assert failing(*[NoConnection("x")] * 5, retries=retries, draw=0.5)[0] == [0.5, 1, 2, 2, 2]


def test_a_date_of_now_still_spreads_those_who_were_refused() -> None:
    assert pause_s(Retries(first_pause_s=1, spread=0.25), busy(0.0), 1, 1.0) == 0.25


def test_attempts_are_bounded() -> None:
    failure = busy(0.0)
    with pytest.raises(Busy):
        failing(*[failure] * 9, retries=Retries(attempts=3))
    assert failure.attempts == 3


def test_a_pause_that_would_end_too_late_is_not_begun() -> None:
    failure = busy(31.0)
    with pytest.raises(Busy):
        failing(failure, retries=Retries(total_s=30))
    assert failing(busy(20.0), retries=Retries(total_s=30))[1] == 2
    with pytest.raises(Busy):
        failing(busy(20.0), retries=Retries(total_s=30), each_s=10.0)  # the attempts count too


def test_a_repeated_attempt_has_only_what_is_left_of_the_time() -> None:
    clock = Clock()
    tries = Tries(Retries(total_s=12), 10.0, clock, lambda: 0.0, lambda _: None)
    with tries:
        assert tries.timeout_s == 10.0
        clock.now_s += 5
        raise busy(1.0)
    clock.now_s += tries.pause_s
    with tries:
        assert tries.timeout_s == 6.0


def test_a_connection_that_breaks_within_a_reply_is_not_tried_again() -> None:
    tries = Tries(Retries(), 10.0, Clock(), lambda: 0.0, lambda _: None)
    with pytest.raises(NoConnection):
        _cut_off(tries)


@pytest.mark.parametrize(("retries", "attempts"), [(NEVER, 1), (Retries(attempts=2), 2)])
def test_exceptions_of_the_library_become_ours(retries: Retries, attempts: int) -> None:
    def translate(error: BaseException) -> CallError | None:
        return NoConnection("translated") if isinstance(error, OSError) else None

    tries = Tries(retries, 10.0, Clock(), lambda: 0.0, translate)
    with pytest.raises(NoConnection, match="translated") as raised:
        _repeat(tries, OSError("theirs"))
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.attempts == attempts
    with pytest.raises(KeyError):
        _repeat(tries, KeyError("not one that anybody knows"))


def _repeat(tries: Tries, error: Exception) -> None:
    while True:
        with tries:
            raise error


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Retries(attempts=0),
        lambda: Retries(total_s=0),
        lambda: Retries(first_pause_s=-1),
        lambda: Retries(spread=-0.1),
    ],
)
def test_impossible_patience_is_refused(wrong: Callable[[], Retries]) -> None:
    with pytest.raises(ValueError, match="attempts"):
        wrong()


def _cut_off(tries: Tries) -> None:
    with tries:
        tries.reply_begins()
        raise NoConnection("cut off")
