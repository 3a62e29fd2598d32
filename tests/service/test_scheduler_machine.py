"""The scheduler under any order of events: a state machine on a clock that stands still until a rule moves it.

    pytest tests/service/test_scheduler_machine.py --hypothesis-profile=thorough      10,000 examples

The stand-in engine answers with the name that the patches carry, so a swapped result shows, and ends a run when a rule
says so. The loop turns by hand; nothing waits for real time. The last tests plant faults that the machine must find.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ranked import ranking_of

from model.preprocess import PatchSequence
from service import scheduler as scheduler_module
from service.batching import BatchLimits, Lanes, plan_batch
from service.errors import DeadlineExceeded, Draining, EngineError, Internal
from service.extras import Extras
from service.runner import Run
from service.scheduler import BatchReport, Fate, Inference, Scheduler, SchedulerObserver

TURNS = 12  # of the loop, after which nothing moves until the next event
MAX_PATCHES, MAX_IMAGES = 100, 6


@dataclass
class Image:
    """One submitted image and what became of it."""

    name: int
    patches: int
    deadline_s: float
    poison: bool = False  # the engine raises for every batch with it
    unanswerable: bool = False  # its logits are no numbers
    started: bool = False
    mates: list["Image"] = field(default_factory=list)  # of its first batch, with itself
    broken_engine: bool = False  # a run with it failed for a reason of the engine's own
    future: asyncio.Future[Inference] = field(init=False)
    ended_s: float | None = None

    def living(self, now_s: float) -> bool:
        return not self.future.cancelled() and now_s < self.deadline_s

    def sequence(self) -> PatchSequence:
        patches = np.zeros((self.patches, 12), np.uint8)
        patches[:, :4] = np.frombuffer(self.name.to_bytes(4, "little"), np.uint8)
        return PatchSequence(patches, (1, self.patches), 2, 2, "PNG")


@dataclass(eq=False)
class OpenRun:
    images: list[Image]
    alone: bool
    gate: asyncio.Future[None]
    fails: bool = False


class Recorder(SchedulerObserver):
    def __init__(self) -> None:
        self.fates: Counter[Fate] = Counter()
        self.reports: list[BatchReport] = []

    def image_left(self, fate: Fate) -> None:
        self.fates[fate] += 1

    def batch_ran(self, report: BatchReport) -> None:
        self.reports.append(report)


class SchedulerMachine(RuleBasedStateMachine):
    """Every image ends exactly once, in time, with its own answer, and nobody starves."""

    scheduler_class: type[Scheduler] = Scheduler

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.accidents: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.accidents.append(context))
        self.now_s = 0.0
        self.images: list[Image] = []
        self.runs: list[OpenRun] = []
        self.runs_started = 0
        self.wrongs: list[str] = []  # found inside the engine, where an assertion would be taken for its failure
        self.seen = Recorder()
        self.closing: asyncio.Task[None] | None = None

    # --- the stand-in engine ----------------------------------------------------------------------------------------
    async def run(self, sequences: Sequence[PatchSequence], *, alone: bool, extras: Extras) -> Run:
        names = [int.from_bytes(sequence.patches[0, :4].tobytes(), "little") for sequence in sequences]
        images = [self.images[name] for name in names]
        if not any(image.started for image in images):
            self.check_new_batch(images)
        self.runs_started += 1
        run = OpenRun(images, alone, self.loop.create_future())
        self.runs.append(run)
        await run.gate
        if run.fails or any(image.poison for image in images):
            raise EngineError("failed")
        rankings = [None if image.unanswerable else ranking_of(image.name) for image in images]
        return Run(rankings, seconds=0.0, share_s=0.0, finished_s=self.now_s)

    def check_new_batch(self, images: list[Image]) -> None:
        """The oldest living image goes first, so that as many batches as there are images ahead of one are its longest
        wait; nobody runs in vain."""
        waiting = [image for image in self.images if not image.started and image.living(self.now_s)]
        longest = max(image.patches for image in images)
        if not waiting or waiting[0] not in images:
            self.wrongs.append("the oldest image was passed over")
        if not all(image.living(self.now_s) for image in images):
            self.wrongs.append("an image ran that was cancelled or late")
        if len(images) > 1 and (len(images) > MAX_IMAGES or len(images) * longest > MAX_PATCHES):
            self.wrongs.append("a batch over its limits")
        for image in images:
            image.started, image.mates = True, images

    # --- events -----------------------------------------------------------------------------------------------------
    @initialize(lanes=st.integers(1, 4), wide=st.booleans(), mixed=st.booleans())
    def start(self, lanes: int, wide: bool, mixed: bool) -> None:
        self.lanes = Lanes(lanes, wide)
        limits = BatchLimits(MAX_PATCHES, MAX_IMAGES, overhead_patches=20, mixed_grids=mixed)
        self.scheduler = self.scheduler_class(self.run, limits, lambda: self.now_s, self.seen, self.lanes)

    @rule(
        sizes=st.lists(st.integers(1, 120), min_size=1, max_size=8),
        seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]),
        kind=st.sampled_from(["good", "good", "good", "poison", "unanswerable"]),
        gone=st.booleans(),
    )
    def submit(self, sizes: list[int], seconds: float, kind: str, gone: bool) -> None:
        """Images of one turn; of a bad kind is the first only, and it may be cancelled in the same turn."""
        images = [Image(len(self.images) + place, patches, self.now_s + seconds) for place, patches in enumerate(sizes)]
        images[0].poison, images[0].unanswerable = kind == "poison", kind == "unanswerable"

        def submit_all() -> None:
            for image in images:
                image.future = self.scheduler.submit(image.sequence(), image.deadline_s)
            if gone:
                images[0].future.cancel()

        self.images += images
        self.in_loop(submit_all)
        self.settle()

    @precondition(lambda self: self.images)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.images), label="image").future.cancel()
        self.settle()

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]), also_cancel=st.booleans())
    def finish(self, data: st.DataObject, fails: bool, also_cancel: bool) -> None:
        """A run ends; the client of one of its images may leave in the very same turn."""
        run = data.draw(st.sampled_from(self.runs), label="run")
        self.end(run, fails=fails)
        if also_cancel:
            run.images[0].future.cancel()
        self.settle()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.closing is None and len(self.images) > 3)
    @rule()
    def close(self) -> None:
        self.closing = self.loop.create_task(self.scheduler.close())
        self.settle()

    # --- what always holds ------------------------------------------------------------------------------------------
    @invariant()
    def nothing_went_wrong_unseen(self) -> None:
        assert self.wrongs == []
        assert self.accidents == []

    @invariant()
    def the_engine_is_used_and_not_overrun(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        assert len(self.runs) <= (2 if self.lanes.number == 1 else self.lanes.number)
        if self.lanes.number > 1 and any(run.alone for run in self.runs):
            assert len(self.runs) == 1, "a run that has all cores has company"
        if not self.runs or (self.lanes.number > len(self.runs) and not any(run.alone for run in self.runs)):
            assert not [image.name for image in self.images if not image.future.done() and not image.started]

    @invariant()
    def every_end_is_right(self) -> None:
        for image in self.images:
            if not image.future.done() or image.ended_s is not None:
                continue
            image.ended_s = self.now_s
            if image.future.cancelled():
                continue
            error = image.future.exception()
            if error is None:
                assert image.future.result().ranking.indices[0] == image.name, "a swapped result"
                assert self.now_s < image.deadline_s, "late with an answer"
                assert not image.poison
                assert not image.unanswerable
            elif isinstance(error, DeadlineExceeded):
                assert self.now_s >= image.deadline_s, "expired before its deadline"
            elif isinstance(error, Internal):
                culprits = sum(mate.poison for mate in image.mates)
                assert image.poison or image.unanswerable or image.broken_engine or culprits > 2, "an innocent failed"
            else:
                assert isinstance(error, Draining)
                assert self.closing is not None
                assert not image.started, "dropped out of a running batch"

    @invariant()
    def the_books_balance(self) -> None:
        """Accepted = answered + failed + expired + cancelled + wasted, and those that are still inside."""
        ends: Counter[str] = Counter()
        for image in self.images:
            if image.future.done() and not image.future.cancelled():
                error = image.future.exception()
                ends[
                    "answered" if error is None else "expired" if isinstance(error, DeadlineExceeded) else "failed"
                ] += 1
        for fate in ("answered", "expired", "failed"):
            assert self.seen.fates[fate] == ends[fate], fate
        gone = sum(image.future.cancelled() for image in self.images)
        assert self.seen.fates["cancelled"] + self.seen.fates["wasted"] <= gone
        assert len(self.seen.reports) + len(self.runs) == self.runs_started

    # --- the end ----------------------------------------------------------------------------------------------------
    def teardown(self) -> None:
        try:
            if hasattr(self, "scheduler"):
                self.drain()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.settle()
            self.loop.close()

    def drain(self) -> None:
        most = sum(1 + 4 * math.ceil(math.log2(max(2, len(image.mates) or 1))) for image in self.images) + 1
        while self.runs and most:
            most -= 1
            self.end(self.runs[0], fails=False)
            self.settle()
            self.every_end_is_right()
        assert not self.runs, "it never ends"
        self.in_loop(lambda: None)
        if self.closing is None:
            self.close()
        assert self.closing is not None
        assert self.closing.done()
        assert all(image.future.done() for image in self.images), "a lost image"
        self.nothing_went_wrong_unseen()
        self.every_end_is_right()
        self.the_books_balance()
        assert sum(self.seen.fates.values()) == len(self.images)

    # --- the loop ---------------------------------------------------------------------------------------------------
    def end(self, run: OpenRun, *, fails: bool) -> None:
        self.runs.remove(run)
        run.fails = fails
        for image in run.images:
            image.broken_engine |= fails
        run.gate.set_result(None)

    def in_loop(self, call: Callable[[], Any]) -> Any:
        async def once() -> Any:
            return call()

        return self.loop.run_until_complete(once())

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())


SchedulerMachine.TestCase.settings = settings(max_examples=max(300, settings().max_examples), stateful_step_count=40)
TestScheduler = SchedulerMachine.TestCase


# --- negative controls: the machine finds what it looks for ----------------------------------------------------------
class Swapping(Scheduler):
    def _answer(self, ticket: Any, ranking: Any, run: Run, batch_images: int) -> None:
        super()._answer(ticket, ranking if batch_images == 1 else run.rankings[0], run, batch_images)


class Late(Scheduler):
    def _answer(self, ticket: Any, ranking: Any, run: Run, batch_images: int) -> None:
        ticket.deadline_s = math.inf
        super()._answer(ticket, ranking, run, batch_images)


class Losing(Scheduler):
    def _fail(self, ticket: Any, error: Any, fate: Fate) -> None:
        if fate != "expired":
            super()._fail(ticket, error, fate)


class CountingTwice(Scheduler):
    def _drop(self, plan: Any) -> None:
        super()._drop(plan)
        for _ in plan.cancelled:
            self._observer.image_left("cancelled")


class BlamingAll(Scheduler):
    async def _run_once(self, part: Any, *, alone: bool) -> bool:
        if not (ran := await super()._run_once(part, alone=alone)):
            for ticket in part:
                self._fail(ticket, Internal(), "failed")
        return ran


def machine_finds(faulty: type[Scheduler]) -> bool:
    class Faulty(SchedulerMachine):
        scheduler_class = faulty

    try:
        run_state_machine_as_test(
            Faulty,
            settings=settings(
                max_examples=300,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("faulty", [Swapping, Late, Losing, CountingTwice, BlamingAll])
def test_a_planted_fault_is_found(faulty: type[Scheduler]) -> None:
    assert machine_finds(faulty)


def test_a_planted_starvation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The youngest goes first."""
    monkeypatch.setattr(
        scheduler_module, "plan_batch", lambda waiting, now_s, limits: plan_batch([*waiting][::-1], now_s, limits)
    )
    assert machine_finds(Scheduler)


def test_without_a_fault_the_same_search_finds_nothing() -> None:
    assert not machine_finds(Scheduler)
