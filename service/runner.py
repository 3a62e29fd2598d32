"""Runs batches in threads, one at a time in the engine, so that the event loop never waits for arrays.

Two threads, two buffers and one lock: while one batch is in the engine, the other thread fills the other buffer.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.preprocess import PatchSequence
from service.batching import fill
from service.buffers import BatchBuffer, BatchMemory
from service.errors import EngineError, StartError


@dataclass(frozen=True, slots=True)
class Run:
    """One engine run.

    Attributes:
        logits: float32 [B, C].
        seconds: in the engine.
        finished_s: on the clock.
        padded_patches: what the engine computed, with the padding of buckets; 0: unknown.
    """

    logits: NDArray[np.float32]
    seconds: float
    finished_s: float
    padded_patches: int = 0


class ArrayEngine(Protocol):
    """The part of `service.engine.Engine` that is needed here."""

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits, float32 [B, C]."""


class BatchRunner:
    """Fills and runs batches.

    Args:
        engine: runs them.
        clock: monotonic, seconds.
        memory: what they are written into; by default memory of the host, every batch in its own shape.
    """

    def __init__(self, engine: ArrayEngine, clock: Callable[[], float], memory: BatchMemory | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._memory = memory or BatchMemory()
        self._free: SimpleQueue[BatchBuffer] = SimpleQueue()
        for buffer in self._memory.buffers:
            self._free.put(buffer)
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="engine")

    async def run(self, sequences: Sequence[PatchSequence]) -> Run:
        """Fill and run one batch; at most two calls at a time are of use.

        Raises:
            EngineError: if the engine fails.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, sequences)

    def warm_up(self) -> None:
        """Run a blank batch of every shape that is slow at its first run, before the first real one.

        Raises:
            StartError: if one fails.
        """
        for buffer in self._memory.buffers:
            for images, length in self._memory.warm_up:
                patches, grid = buffer.shaped(images, length, self._memory.patch_dim)
                fill([], patches, grid)
                try:
                    buffer.ready(patches, grid)
                    self._engine.run(patches, grid)
                except EngineError as error:
                    raise StartError(f"the model fails on {images} images of {length} patches: {error}") from None

    def close(self) -> None:
        """Take no more batches; does not wait for the running one."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, sequences: Sequence[PatchSequence]) -> Run:
        buffer = self._free.get()
        try:
            return self._run_in(buffer, sequences)
        finally:
            self._free.put(buffer)

    def _run_in(self, buffer: BatchBuffer, sequences: Sequence[PatchSequence]) -> Run:
        images, length = self._memory.buckets.shape(len(sequences), max(len(each.patches) for each in sequences))
        patches, grid = buffer.shaped(images, length, sequences[0].patches.shape[1])
        fill(sequences, patches, grid)
        buffer.ready(patches, grid)
        with self._lock:
            started = self._clock()
            logits = self._engine.run(patches, grid)
            finished = self._clock()
        return Run(logits[: len(sequences)], finished - started, finished, images * length)
