"""The scheduler: waiting images, and when the next batch closes. All its state belongs to one event loop.

A batch closes when the engine, or one of its lanes, is free, so nobody waits while it is idle and batches grow while it
is busy. What may start when is decided in `service.batching`. Every image gets exactly one outcome: an `Inference`, an
error, or it was cancelled by whoever waited.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from model.preprocess import PatchSequence
from service.batching import BatchLimits, Lanes, Plan, Turn, next_turn, plan_batch
from service.errors import (
    DeadlineExceeded,
    DeviceLost,
    DeviceLostError,
    Draining,
    EngineError,
    Internal,
    OutOfMemoryError,
    Overloaded,
    RequestError,
)
from service.extras import NOTHING, Extras, Found, found_in, union
from service.predictions import Ranking
from service.runner import Run
from service.tracing.references import SpanReference

_MEMORY_RETRY_S = 1
_GROW_AFTER_S = 60.0
_END_S = 3.0
Fate = Literal["answered", "expired", "cancelled", "failed", "wasted"]


@dataclass(frozen=True, slots=True)
class Inference:
    """What the engine found in one image.

    Attributes:
        ranking: its best classes.
        queue_s: from arrival to the engine.
        inference_s: in the engine, with its batch.
        batch_images: how many shared the batch.
        found: what else was wanted.
    """

    ranking: Ranking
    queue_s: float
    inference_s: float
    batch_images: int
    found: Found = NOTHING


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One engine run, for metrics and admission.

    Attributes:
        images: B.
        patches: without padding.
        padded_patches: B * max(N).
        seconds: of the engine's time; a second that n batches share counts as 1/n for each.
        failed: the engine raised.
        began_s, ended_s: in the engine, on the clock.
        origins: the spans of those images whose requests have one.
    """

    images: int
    patches: int
    padded_patches: int
    seconds: float = 0.0
    failed: bool = False
    began_s: float = 0.0
    ended_s: float = 0.0
    origins: tuple[SpanReference, ...] = ()


class SchedulerObserver:
    """Told what happens; does nothing by itself."""

    def batch_ran(self, report: BatchReport) -> None:
        """An engine run ended."""

    def image_left(self, fate: Fate) -> None:
        """An image got its outcome."""

    def engine_failed(self, error: Exception, images: int) -> None:
        """A run of `images` raised."""

    def device_lost(self, error: DeviceLostError) -> None:
        """No run will ever succeed again; called before any image is told."""

    def batches_limited(self, max_batch_patches: int) -> None:
        """Batches have at most so many patches from now on: less after one that did not fit, later more again."""


def _check_count(run: Run, images: int) -> None:
    """Raises: EngineError: if there is not one answer for each image."""
    if len(run.rankings) != images:
        raise EngineError(f"the engine answered {len(run.rankings)} of {images} images")


class RunBatch(Protocol):
    """What runs batches: `service.runner.BatchRunner.run`."""

    async def __call__(self, sequences: Sequence[PatchSequence], *, alone: bool, extras: Extras) -> Run:
        """Stack and run one batch, on all cores if it is `alone`."""


@dataclass(eq=False, slots=True)
class _Ticket:
    sequence: PatchSequence
    arrived_s: float
    deadline_s: float
    extras: Extras
    future: asyncio.Future[Inference]
    origin: SpanReference | None

    @property
    def length(self) -> int:
        return len(self.sequence.patches)

    @property
    def grid(self) -> tuple[int, int]:
        return self.sequence.grid

    @property
    def cancelled(self) -> bool:
        return self.future.cancelled()


class Scheduler:
    """The queue in front of one engine.

    Args:
        run: called for as many batches at a time as there are lanes; with one lane, for one more that is prepared.
        limits: of one batch.
        clock: monotonic, seconds.
        observer: told what happens.
        lanes: how many batches the engine runs at a time.
    """

    def __init__(
        self,
        run: RunBatch,
        limits: BatchLimits,
        clock: Callable[[], float],
        observer: SchedulerObserver,
        lanes: Lanes | None = None,
    ) -> None:
        self._run = run
        self._limits = limits
        self._most_patches = limits.max_patches
        self._grow_at_s = 0.0
        self._clock = clock
        self._observer = observer
        self._lanes = lanes or Lanes()
        self._waiting: dict[_Ticket, None] = {}  # in order of arrival
        self._waiting_patches = 0
        self._in_flight: dict[asyncio.Task[None], bool] = {}  # whether it runs alone
        self._pump_due = False
        self._closed: RequestError | None = None  # what is said to those who come too late

    def submit(
        self,
        sequence: PatchSequence,
        deadline_s: float,
        extras: Extras = Extras.NONE,
        origin: SpanReference | None = None,
    ) -> asyncio.Future[Inference]:
        """Queue one image. Cancel the future when nobody waits any more.

        Images that are submitted in the same turn of the loop can share a batch even when the engine is idle.

        Args:
            sequence: the image.
            deadline_s: on the clock.
            extras: what is wanted beside its best classes.
            origin: the span of its request, if it has one.

        Returns:
            A future of the answer; it raises DeadlineExceeded, Internal, Overloaded, DeviceLost or Draining.
        """
        future: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        ticket = _Ticket(sequence, self._clock(), deadline_s, extras, future, origin)
        if self._closed is not None:
            self._fail(ticket, self._closed, "failed")
            return future
        self._waiting[ticket] = None
        self._waiting_patches += ticket.length
        self._pump_soon()
        return future

    async def close(self) -> None:
        """Fail what still waits and let the running batches end, for a moment: one that hangs never does."""
        self._close_with(Draining())
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=_END_S)

    def _close_with(self, error: RequestError) -> None:
        self._closed = error
        for ticket in self._waiting:
            self._fail(ticket, error, "failed")
        self._waiting.clear()
        self._waiting_patches = 0

    def _pump_soon(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Close batches as long as the engine, or the place behind it, is free."""
        self._pump_due = False
        while self._waiting:
            turn = next_turn(self._lanes, len(self._in_flight), len(self._waiting), alone=any(self._in_flight.values()))
            if turn is None or (turn.only_full and not self._may_be_full()):
                return
            plan = plan_batch(self._waiting, self._clock(), self._limits_of(turn))
            if plan.expired or plan.cancelled:
                self._drop(plan)
                continue  # the turn was that of more images than there are
            if turn.only_full and not plan.full:
                return
            self._start(plan.batch, alone=turn.alone)

    def _limits_of(self, turn: Turn) -> BatchLimits:
        if turn.max_images is None:
            return self._limits
        return replace(self._limits, max_images=min(self._limits.max_images, turn.max_images))

    def _may_be_full(self) -> bool:
        """Else planning would be for nothing."""
        return self._waiting_patches >= self._limits.max_patches or len(self._waiting) >= self._limits.max_images

    def _drop(self, plan: Plan[_Ticket]) -> None:
        for ticket in plan.expired:
            self._take(ticket)
            self._fail(ticket, DeadlineExceeded(), "expired")
        for ticket in plan.cancelled:
            self._take(ticket)
            self._observer.image_left("cancelled")

    def _start(self, batch: list[_Ticket], *, alone: bool) -> None:
        for ticket in batch:
            self._take(ticket)
        task = asyncio.get_running_loop().create_task(self._run_to_the_end(batch, alone=alone))
        self._in_flight[task] = alone
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        self._pump()

    def _take(self, ticket: _Ticket) -> None:
        del self._waiting[ticket]
        self._waiting_patches -= ticket.length

    async def _run_to_the_end(self, batch: list[_Ticket], *, alone: bool) -> None:
        """Run a batch; halve it where the engine fails, until each culprit is alone or the runs are used up.

        A batch that is too large for the memory is halved in the same way, and what does not fit alone is refused.
        """
        # Two culprits cost at most four runs a level.
        runs_left = 1 + 4 * math.ceil(math.log2(len(batch))) if len(batch) > 1 else 1
        parts = [batch]
        error: RequestError | None = None
        while parts:
            part = parts.pop(0)
            if runs_left:
                error = await self._run_once(part, alone=alone)
            if error is not None:
                if runs_left <= 1 or len(part) == 1 or isinstance(error, DeviceLost):
                    for ticket in part:
                        self._fail(ticket, error, "failed")
                else:
                    middle = len(part) // 2
                    parts += [part[:middle], part[middle:]]
            runs_left = max(0, runs_left - 1)

    async def _run_once(self, part: list[_Ticket], *, alone: bool) -> RequestError | None:
        """Answer the images of one run; or what to tell them if it failed and is not tried again."""
        if isinstance(self._closed, DeviceLost):
            return self._closed
        started = self._clock()
        lengths = [ticket.length for ticket in part]
        sizes = (len(part), sum(lengths), len(part) * max(lengths))
        origins = tuple(ticket.origin for ticket in part if ticket.origin is not None)
        try:
            extras = union(ticket.extras for ticket in part)
            run = await self._run([ticket.sequence for ticket in part], alone=alone, extras=extras)
            _check_count(run, len(part))
        except Exception as error:  # noqa: BLE001 - whatever a run raises, its images must get an outcome
            ended = self._clock()
            report = BatchReport(*sizes, ended - started, failed=True, began_s=started, ended_s=ended, origins=origins)
            self._observer.batch_ran(report)
            self._observer.engine_failed(error, len(part))
            return self._learn_from(error, sizes[2])
        images, patches, padded_patches = sizes
        padded_patches = run.padded_patches or padded_patches  # buckets pad further than the longest image
        began_s, ended_s = run.finished_s - run.seconds, run.finished_s
        report = BatchReport(
            images, patches, padded_patches, run.share_s, began_s=began_s, ended_s=ended_s, origins=origins
        )
        self._observer.batch_ran(report)
        for place, (ticket, ranking) in enumerate(zip(part, run.rankings, strict=True)):
            found = found_in(run.answers, place, ticket.length, ticket.extras)
            if ranking is None or not found.finite:
                self._fail(ticket, Internal(), "failed")
            else:
                self._answer(ticket, ranking, found, run, len(part))
        self._grow_again()
        return None

    def _learn_from(self, error: Exception, padded_patches: int) -> RequestError:
        if isinstance(error, DeviceLostError):
            self._observer.device_lost(error)
            self._close_with(DeviceLost())
            return DeviceLost()
        if not isinstance(error, OutOfMemoryError):
            return Internal()
        self._limit_batches(min(self._limits.max_patches, max(1, padded_patches // 2)))
        return Overloaded(_MEMORY_RETRY_S, status=503)

    def _grow_again(self) -> None:
        """After a while: who took the memory may have given it back."""
        if self._limits.max_patches < self._most_patches and self._clock() >= self._grow_at_s:
            self._limit_batches(min(self._most_patches, 2 * self._limits.max_patches))

    def _limit_batches(self, max_patches: int) -> None:
        self._limits = replace(self._limits, max_patches=max_patches)
        self._grow_at_s = self._clock() + _GROW_AFTER_S
        self._observer.batches_limited(max_patches)

    def _answer(self, ticket: _Ticket, ranking: Ranking, found: Found, run: Run, batch_images: int) -> None:
        if ticket.deadline_s <= self._clock():
            self._fail(ticket, DeadlineExceeded(), "expired")
        elif ticket.future.done():
            self._observer.image_left("wasted")
        else:
            queue_s = max(0.0, run.finished_s - run.seconds - ticket.arrived_s)
            ticket.future.set_result(Inference(ranking, queue_s, run.seconds, batch_images, found))
            self._observer.image_left("answered")

    def _fail(self, ticket: _Ticket, error: RequestError, fate: Fate) -> None:
        if ticket.future.done():
            self._observer.image_left("wasted" if fate == "failed" else "cancelled")
            return
        ticket.future.set_exception(error)
        ticket.future.exception()  # marked as seen: whoever waited may be gone in this very turn of the loop
        self._observer.image_left(fate)
