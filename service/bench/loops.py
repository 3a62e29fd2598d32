"""The two kinds of load. Who sends, and the clock, are arguments.

A closed loop keeps so many requests in flight, each caller waiting for its answer: it shows capacity, and a slow
service is asked less. An open loop sends when requests are due, whatever the answers do, and counts latency from then:
it shows what callers feel who know nothing of each other (no coordinated omission).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from service.bench.samples import Fate, Sample

Send = Callable[[], Awaitable[tuple[Fate, str]]]
_PAUSE_S = 0.05


async def closed_loop(send: Send, connections: int, seconds: float, samples: list[Sample]) -> None:
    """Send for so long; samples are added in the order of their ends."""
    now = asyncio.get_running_loop().time
    start_s = now()

    async def caller() -> None:
        while (sent_s := now() - start_s) < seconds:
            fate, reason = await send()
            samples.append(Sample(sent_s, now() - start_s - sent_s, fate, reason))
            if fate != Fate.ANSWERED:
                await asyncio.sleep(_PAUSE_S)  # a refusal is quick: without a pause the loop would spin

    await asyncio.gather(*(caller() for _ in range(connections)))


async def open_loop(send: Send, due_s: Sequence[float], samples: list[Sample]) -> None:
    """Send each request when it is due, from now on; returns when the last reply has come."""
    now = asyncio.get_running_loop().time
    start_s = now()

    async def one(due: float, late_s: float) -> None:
        fate, reason = await send()
        samples.append(Sample(due, now() - start_s - due, fate, reason, late_s))

    async with asyncio.TaskGroup() as tasks:
        for due in due_s:
            await asyncio.sleep(max(0.0, due - (now() - start_s)))
            tasks.create_task(one(due, max(0.0, now() - start_s - due)))
