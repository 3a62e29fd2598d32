"""The loops with a sender of the test's own and a loop whose clock is virtual: nothing waits."""

import asyncio

import pytest
from virtual_time import play

from service.bench.loops import closed_loop, open_loop
from service.bench.samples import Fate, Sample


def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    flying, most = 0, 0

    async def send() -> tuple[Fate, str]:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.25)
        flying -= 1
        return Fate.ANSWERED, ""

    samples: list[Sample] = []
    play(closed_loop(send, 3, 1.0, samples))
    assert most == 3
    assert len(samples) == 3 * 4
    assert [sample.latency_s for sample in samples] == pytest.approx([0.25] * 12)


def test_a_refused_caller_pauses() -> None:
    async def refuse() -> tuple[Fate, str]:
        return Fate.REFUSED, "429 overloaded"

    samples: list[Sample] = []
    play(closed_loop(refuse, 1, 1.0, samples))
    assert len(samples) == pytest.approx(20, abs=1)


def test_an_open_loop_sends_on_time_and_counts_from_then() -> None:
    """The first answer takes long; who is due behind it is sent all the same."""
    slow = iter([5.0, 0.1, 0.1])

    async def send() -> tuple[Fate, str]:
        await asyncio.sleep(next(slow))
        return Fate.ANSWERED, ""

    samples: list[Sample] = []
    play(open_loop(send, [0.0, 1.0, 2.0], samples))
    ended = sorted((sample.due_s, round(sample.latency_s, 6)) for sample in samples)
    assert ended == [(0.0, 5.0), (1.0, 0.1), (2.0, 0.1)]


def test_what_this_program_is_late_counts_as_latency_and_is_told_apart() -> None:
    """A sender that blocks the loop for two seconds: what was due meanwhile waited, as its caller would have."""
    blocked = iter([2.0, 0.0])

    async def send() -> tuple[Fate, str]:
        asyncio.get_running_loop().now_s += next(blocked)  # type: ignore[attr-defined]
        return Fate.ANSWERED, ""

    samples: list[Sample] = []
    play(open_loop(send, [0.0, 1.0], samples))
    assert [sample.due_s for sample in samples] == [0.0, 1.0]
    assert [sample.latency_s for sample in samples] == pytest.approx([2.0, 1.0])
    assert [sample.late_s for sample in samples] == pytest.approx([0.0, 1.0])
