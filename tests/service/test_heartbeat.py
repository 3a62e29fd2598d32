import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.heartbeat import Heartbeat
from service.metrics import Metrics

pytestmark = pytest.mark.anyio


class Recorder:
    """A log that keeps errors."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))


def block_until(holds: Callable[[], bool]) -> None:
    """Keep the event loop from turning."""
    while not holds():
        time.sleep(0.01)


async def test_listeners_are_told_the_time() -> None:
    told: list[float] = []
    heard = asyncio.Event()

    def listen(now_s: float) -> None:
        told.append(now_s)
        heard.set()

    heartbeat = Heartbeat(lambda: 7.0, Metrics(), Recorder(), [listen])  # type: ignore[arg-type]
    beating = asyncio.create_task(heartbeat.beat())
    await asyncio.wait_for(heard.wait(), 5)
    beating.cancel()
    assert set(told) == {7.0}


async def test_who_has_not_begun_is_not_late() -> None:
    now_s = 0.0
    heartbeat = Heartbeat(lambda: now_s, Metrics(), Recorder())  # type: ignore[arg-type]
    now_s = 60.0
    assert heartbeat.in_time, "a model that takes a minute to open"
    beating = asyncio.create_task(heartbeat.beat())
    await asyncio.sleep(0)
    now_s = 120.0
    assert not heartbeat.in_time
    beating.cancel()


async def test_a_loop_that_does_not_turn_is_seen_counted_and_described_while_it_lasts() -> None:
    metrics, log = Metrics(), Recorder()
    heartbeat = Heartbeat(time.monotonic, metrics, log)  # type: ignore[arg-type]
    beating = asyncio.create_task(heartbeat.beat())
    await asyncio.sleep(0)
    assert heartbeat.in_time
    block_until(lambda: bool(log.events))
    assert not heartbeat.in_time
    event, fields = log.events[0]
    assert event == "event_loop_stalled"
    assert any(place.startswith("block_until:") for place in fields["stack"])
    assert b"patchserve_event_loop_stalls_total 1.0" in metrics.render()
    await asyncio.sleep(0.3)
    assert heartbeat.in_time
    beating.cancel()
    assert len(log.events) == 1
