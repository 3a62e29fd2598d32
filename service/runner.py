"""Runs batches in threads, so that the event loop never waits for arrays.

A thread and a buffer for each batch that is under way. With one lane that is one batch in the engine and one that is
filled meanwhile; with several, each thread fills its batch and runs it. `B` images, `C` classes.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model.preprocess import PatchSequence
from service.batching import fill
from service.buffers import BatchBuffer, BatchMemory
from service.errors import EngineError, StartError
from service.extras import Answers, Extras
from service.predictions import Ranking, rank_all

_LANE_NICENESS = 10  # beyond that of the process, which ends at 19; docs/performance/http-workers.md


@dataclass(frozen=True, slots=True)
class Run:
    """One engine run.

    Attributes:
        rankings: of each image; None where the logits are not all finite numbers.
        seconds: in the engine.
        share_s: of the engine's time: a second in which n batches were in it counts as 1/n.
        finished_s: on the clock.
        padded_patches: what the engine computed, with the padding of buckets; 0: unknown.
        answers: of the engine; None where nothing but the rankings was asked for.
    """

    rankings: Sequence[Ranking | None]
    seconds: float
    share_s: float
    finished_s: float
    padded_patches: int = 0
    answers: Answers | None = None


class ArrayEngine(Protocol):
    """The part of `service.engine.Engine` that is needed here."""

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        """Logits, float32 [B, C]; on all cores if it is `alone`."""

    def infer(
        self, patches: NDArray[np.uint8], grid: NDArray[np.int64], extras: Extras, *, alone: bool = True
    ) -> Answers:
        """Logits and what else is wanted."""


class Moment(NamedTuple):
    """A reading of `SharedTime`: its clock, and the seconds of the engine that a batch which was always there had."""

    now_s: float
    shared_s: float


class SharedTime:
    """Divides the seconds of an engine among the batches that are in it, in equal parts; thread-safe.

    The shares of all batches sum up to the time in which there was any, so patches over shares is the engine's speed
    whatever ran beside what.

    Args:
        clock: monotonic, seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._inside = 0
        self._last = Moment(0.0, 0.0)

    def enter(self) -> Moment:
        """A batch begins."""
        return self._change(1)

    def leave(self) -> Moment:
        """A batch ends; its share is what has been added to `shared_s` since it began."""
        return self._change(-1)

    def _change(self, batches: int) -> Moment:
        with self._lock:
            now_s = self._clock()
            share_s = (now_s - self._last.now_s) / self._inside if self._inside else 0.0
            self._inside += batches
            self._last = Moment(now_s, self._last.shared_s + share_s)
            return self._last


class EngineRoom:
    """What all models of a service share: the lanes, and the time of whatever is in them.

    So a second model takes turns with the first instead of adding to it, and patches over shares of time stay the
    speed of the whole.

    Args:
        clock: monotonic, seconds.
        lanes: batches in it at a time.
    """

    def __init__(self, clock: Callable[[], float], lanes: int) -> None:
        self.lanes = threading.Semaphore(lanes)
        self.time = SharedTime(clock)


class BatchRunner:
    """Fills and runs batches.

    Args:
        engine: runs them.
        clock: monotonic, seconds.
        memory: what they are written into; by default memory of the host, every batch in its own shape.
        lanes: batches in the engine at a time.
        room: shared with the runners of other models; by default there are none.
        polite: threads of several lanes let decoding and the event loop go before them.
        executor: that fills and runs batches; by default a thread for each buffer.
    """

    def __init__(
        self,
        engine: ArrayEngine,
        clock: Callable[[], float],
        memory: BatchMemory | None = None,
        lanes: int = 1,
        room: EngineRoom | None = None,
        *,
        polite: bool = True,
        executor: Executor | None = None,
    ) -> None:
        self._engine = engine
        self._memory = memory or BatchMemory()
        self._free: SimpleQueue[BatchBuffer] = SimpleQueue()
        for buffer in self._memory.buffers:
            self._free.put(buffer)
        room = room or EngineRoom(clock, lanes)
        self._lanes, self._time = room.lanes, room.time
        self._several = lanes > 1
        self._threads = executor or ThreadPoolExecutor(
            len(self._memory.buffers),
            thread_name_prefix="engine",
            initializer=_step_back if self._several and polite else None,
        )

    async def run(self, sequences: Sequence[PatchSequence], *, alone: bool = True, extras: Extras = Extras.NONE) -> Run:
        """Fill and run one batch; more calls at a time than there are buffers are of no use.

        Args:
            sequences: the images.
            alone: on all cores. With several lanes the caller sees to it that nothing else runs meanwhile.
            extras: what any of the images wants beside its ranking.

        Raises:
            EngineError: if the engine fails.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, sequences, alone, extras)

    def submit(
        self, sequences: Sequence[PatchSequence], *, alone: bool = True, extras: Extras = Extras.NONE
    ) -> Future[Run]:
        """As `run`, for callers without an event loop."""
        return self._threads.submit(self._run, sequences, alone, extras)

    def warm_up(self) -> None:
        """Run a blank batch of every shape that is slow at its first run, before the first real one.

        Raises:
            StartError: if one fails.
        """
        for buffer in self._memory.buffers:
            self._warm_up_in(buffer, alone=True)
            if self._several:  # on the CPU alone, where not each buffer is slow at first but each width of a run
                self._warm_up_in(buffer, alone=False)
                break

    def close(self) -> None:
        """Take no more batches; does not wait for the running one."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _warm_up_in(self, buffer: BatchBuffer, *, alone: bool) -> None:
        for images, length in self._memory.warm_up:
            patches, grid = buffer.shaped(images, length, self._memory.patch_dim)
            fill([], patches, grid)
            try:
                buffer.ready(patches, grid)
                self._engine.run(patches, grid, alone=alone)
            except EngineError as error:
                raise StartError(f"the model fails on {images} images of {length} patches: {error}") from None

    def _run(self, sequences: Sequence[PatchSequence], alone: bool, extras: Extras) -> Run:
        buffer = self._free.get()
        try:
            return self._run_in(buffer, sequences, extras, alone=alone)
        finally:
            self._free.put(buffer)

    def _run_in(self, buffer: BatchBuffer, sequences: Sequence[PatchSequence], extras: Extras, *, alone: bool) -> Run:
        images, length = self._memory.buckets.shape(len(sequences), max(len(each.patches) for each in sequences))
        patches, grid = buffer.shaped(images, length, sequences[0].patches.shape[1])
        fill(sequences, patches, grid)
        buffer.ready(patches, grid)
        with self._lanes:
            start = self._time.enter()
            try:
                answers = self._infer(patches, grid, extras, alone=alone)
            finally:
                end = self._time.leave()
        return Run(
            rank_all(answers.logits[: len(sequences)]),
            seconds=end.now_s - start.now_s,
            share_s=end.shared_s - start.shared_s,
            finished_s=end.now_s,
            padded_patches=images * length,
            answers=answers if extras else None,
        )

    def _infer(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], extras: Extras, *, alone: bool) -> Answers:
        if extras:
            return self._engine.infer(patches, grid, extras, alone=alone)
        return Answers(self._engine.run(patches, grid, alone=alone))


def _step_back() -> None:
    """Let decoding and the event loop go before this thread.

    Lanes keep every core busy for as long as there are images, and as equals they would interrupt short work for their
    long runs; decoding that waits means small batches and, with large photographs, a seventh fewer requests a second.
    """
    if sys.platform == "linux":  # elsewhere threads have no niceness of their own
        with suppress(OSError):
            thread = threading.get_native_id()
            niceness = min(19, os.getpriority(os.PRIO_PROCESS, thread) + _LANE_NICENESS)
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
