"""Ten times of what the engine can do, while its speed changes: in virtual time, with the service's own parts."""

from collections.abc import Callable, Sequence

import pytest
from overloaded import TIMEOUT_S, OfTime, Reply, impatience, overload

CAPACITY = 40.0  # images a second
BEGIN_S, CHANGE_S, END_S, AFTER_S = 2.0, 5.0, 8.0, 2.0


def load(now_s: float) -> float:
    """Half of the capacity, ten times of it from `BEGIN_S` to `END_S`, then half again."""
    return CAPACITY * (10 if BEGIN_S <= now_s < END_S else 0.5)


def steady(_: float) -> float:
    return CAPACITY


def falls_at(when_s: float, share: float, until_s: float = float("inf")) -> OfTime:
    return lambda now_s: CAPACITY * (share if when_s <= now_s < until_s else 1)


def flaps(now_s: float) -> float:
    return CAPACITY * (2 / 3 if int(now_s) % 2 else 1)


def crowded(replies: Sequence[Reply]) -> list[Reply]:
    """Those that were asked for during the overload."""
    return [reply for reply in replies if BEGIN_S <= reply.asked_s < END_S]


def late(replies: Sequence[Reply]) -> list[Reply]:
    """Accepted, and not answered in time."""
    return [reply for reply in replies if reply.status == 504]


def goodput(replies: Sequence[Reply], images_per_s: OfTime) -> float:
    """Answers in time during the overload, as a share of what the engine can do in this time."""
    answered = sum(reply.status == 200 and BEGIN_S <= reply.answered_s < END_S for reply in replies)
    step_s = 0.01
    times = [BEGIN_S + step_s * step for step in range(round((END_S - BEGIN_S) / step_s))]
    return answered / sum(step_s * images_per_s(now_s) for now_s in times)


@pytest.mark.parametrize(
    "images_per_s",
    [
        steady,
        falls_at(CHANGE_S, 2 / 3),
        falls_at(CHANGE_S, 1 / 2),
        falls_at(BEGIN_S + 0.2, 2 / 3),  # when the first rush has just been accepted
        falls_at(CHANGE_S, 0.01, until_s=CHANGE_S + 1),
        flaps,
    ],
    ids=["steady", "third", "half", "third in the rush", "stands for a second", "flaps by a third"],
)
def test_nothing_accepted_is_late_and_the_engine_works_for_answers(images_per_s: Callable[[float], float]) -> None:
    replies = overload(images_per_s, load, END_S)
    assert not late(replies)
    assert goodput(replies, images_per_s) > 0.9
    refused = sum(reply.status == 429 for reply in crowded(replies))
    assert refused > 0.8 * len(crowded(replies))


def test_after_a_collapse_nothing_is_late_once_the_new_speed_is_learnt() -> None:
    replies = overload(falls_at(CHANGE_S, 0.1), load, END_S)
    assert late(replies)
    assert max(reply.asked_s for reply in late(replies)) < CHANGE_S + 2.5
    assert len(late(replies)) < 40  # one second of what the engine could do


@pytest.mark.parametrize("images_per_s", [steady, falls_at(CHANGE_S, 2 / 3)], ids=["steady", "third"])
def test_an_overload_ends_with_its_cause(images_per_s: OfTime) -> None:
    replies = overload(images_per_s, load, END_S + AFTER_S)
    after = [reply for reply in replies if reply.asked_s >= END_S + 1.5]
    assert len(after) > 3
    assert {reply.status for reply in after} == {200}
    assert max(reply.latency_s for reply in after) < TIMEOUT_S / 4


def test_a_slow_model_starts_nothing_that_it_cannot_end() -> None:
    """An image has a lane for 0.8 s, later 1.2: behind as much work as keeps the lanes busy it would be late.

    A single run may still take longer than it can be known to.
    """
    replies = overload(lambda now_s: 2.5 if now_s < 15 else 1.67, lambda now_s: 1 if now_s < 5 else 20, 60.0)
    assert len(late(replies)) < 3
    assert sum(reply.status == 200 for reply in replies) > 90


def test_clients_that_all_fit_are_not_refused_for_long() -> None:
    """36 of them wait 0.9 s each. Those that a short halt makes too many ask again at once, and look like a crowd."""
    replies = impatience(falls_at(3.0, 0.5, until_s=4.0), 36, 12.0)
    refused_s = [reply.asked_s for reply in replies if reply.status == 429]
    assert len(refused_s) > 1000
    assert min(refused_s) > 3.0
    assert max(refused_s) < 10.0
    assert not late(replies)
