"""An overload in virtual time: the service's own admission and scheduler, before an engine whose speed is scripted.

Requests of one image each arrive at random (Poisson), whatever the answers are. A batch takes its time by the speed of
the moment, with a random factor of a fifth.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ranked import ranking_of
from virtual_time import play

from model.preprocess import PatchSequence
from service.admission import Admission, Rate
from service.batching import BatchLimits, Lanes
from service.errors import DeadlineExceeded, Overloaded
from service.extras import Extras
from service.runner import Run, SharedTime
from service.scheduler import BatchReport, Scheduler, SchedulerObserver
from service.settings import AdmissionSettings

LANES, PATCHES, TIMEOUT_S = 2, 196, 2.0
_IMAGE = PatchSequence(np.zeros((PATCHES, 1), np.uint8), (14, 14), 224, 224, "JPEG")
_STEP_S, _SPREAD = 0.02, 0.2

OfTime = Callable[[float], float]  # something a second at a time of the virtual clock


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request: seconds on the virtual clock, and an HTTP status."""

    asked_s: float
    answered_s: float
    status: int

    @property
    def latency_s(self) -> float:
        return self.answered_s - self.asked_s


class ScriptedEngine:
    """Lanes that share a speed. Args: images a second of all of them together, and where the noise comes from."""

    def __init__(self, images_per_s: OfTime, chance: random.Random) -> None:
        self._images_per_s = images_per_s
        self._chance = chance
        self._clock = asyncio.get_running_loop().time
        self._time = SharedTime(self._clock)

    async def run(self, sequences: Sequence[PatchSequence], *, alone: bool, extras: Extras) -> Run:
        start = self._time.enter()
        left = len(sequences) * math.exp(self._chance.gauss(0, _SPREAD))
        while left > 0:
            images_per_s = self._images_per_s(self._clock()) / (1 if alone else LANES)
            await asyncio.sleep(min(_STEP_S, left / images_per_s))
            left -= _STEP_S * images_per_s
        end = self._time.leave()
        return Run([ranking_of(0)] * len(sequences), end.now_s - start.now_s, end.shared_s - start.shared_s, end.now_s)


class _Learning(SchedulerObserver):
    def __init__(self, rate: Rate) -> None:
        self._rate = rate

    def batch_ran(self, report: BatchReport) -> None:
        self._rate.observe(report.patches, report.seconds)


def overload(images_per_s: OfTime, requests_per_s: OfTime, seconds: float, seed: int = 0) -> list[Reply]:
    """What becomes of the requests of so many seconds, in the order of their ends."""
    return play(_overload(images_per_s, requests_per_s, seconds, random.Random(seed)))  # noqa: S311 - a fixed seed


def impatience(images_per_s: OfTime, clients: int, seconds: float, seed: int = 0) -> list[Reply]:
    """As `overload`, of clients that ask one after the other, a hundredth of a second after each answer."""
    return play(_impatience(images_per_s, clients, seconds, random.Random(seed)))  # noqa: S311 - a fixed seed


async def _impatience(images_per_s: OfTime, clients: int, seconds: float, chance: random.Random) -> list[Reply]:
    clock, replies = asyncio.get_running_loop().time, list[Reply]()
    scheduler, admission = _open(images_per_s, chance)

    async def ask_again_and_again() -> None:
        while clock() < seconds:
            asked_s = clock()
            status = await _status(scheduler, admission, asked_s)
            replies.append(Reply(asked_s, clock(), status))
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(ask_again_and_again())
    return replies


def _open(images_per_s: OfTime, chance: random.Random) -> tuple[Scheduler, Admission]:
    clock, rate = asyncio.get_running_loop().time, Rate()
    engine, limits = ScriptedEngine(images_per_s, chance), BatchLimits(400, 64, 0)
    scheduler = Scheduler(engine.run, limits, clock, _Learning(rate), Lanes(LANES))
    return scheduler, Admission(AdmissionSettings(), 1, rate, busy_patches=LANES * PATCHES)


async def _overload(images_per_s: OfTime, requests_per_s: OfTime, seconds: float, chance: random.Random) -> list[Reply]:
    clock, replies = asyncio.get_running_loop().time, list[Reply]()
    scheduler, admission = _open(images_per_s, chance)

    async def serve(asked_s: float) -> None:
        status = await _status(scheduler, admission, asked_s)
        replies.append(Reply(asked_s, clock(), status))

    async with asyncio.TaskGroup() as tasks:
        while clock() < seconds:
            await asyncio.sleep(chance.expovariate(requests_per_s(clock())))
            try:
                admission.check_open(clock(), TIMEOUT_S)  # as the door does, before there is a task
            except Overloaded:
                replies.append(Reply(clock(), clock(), 429))
            else:
                tasks.create_task(serve(clock()))
    return replies


async def _status(scheduler: Scheduler, admission: Admission, asked_s: float) -> int:
    deadline_s = asked_s + TIMEOUT_S
    try:
        with admission.reserve(PATCHES, asked_s, deadline_s):
            async with asyncio.timeout_at(deadline_s):
                await scheduler.submit(_IMAGE, deadline_s)
    except Overloaded:
        return 429
    except (DeadlineExceeded, TimeoutError):
        return 504
    return 200
