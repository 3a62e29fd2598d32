"""Runs batches in threads, one at a time in the engine, so that the event loop never waits for arrays.

Two threads and one lock: while one batch is in the engine, the other thread stacks the next one.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.preprocess import PatchSequence
from service.batching import assemble


@dataclass(frozen=True, slots=True)
class Run:
    """One engine run.

    Attributes:
        logits: float32 [B, C].
        seconds: in the engine.
        finished_s: on the clock.
    """

    logits: NDArray[np.float32]
    seconds: float
    finished_s: float


class ArrayEngine(Protocol):
    """The part of `service.engine.Engine` that is needed here."""

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits, float32 [B, C]."""


class BatchRunner:
    """Args: the engine, and a monotonic clock in seconds."""

    def __init__(self, engine: ArrayEngine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="engine")

    async def run(self, sequences: Sequence[PatchSequence]) -> Run:
        """Stack and run one batch; at most two calls at a time are of use.

        Raises:
            EngineError: if the engine fails.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, sequences)

    def close(self) -> None:
        """Take no more batches; does not wait for the running one."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, sequences: Sequence[PatchSequence]) -> Run:
        patches, grid = assemble(sequences)
        with self._lock:
            started = self._clock()
            logits = self._engine.run(patches, grid)
            finished = self._clock()
        return Run(logits, finished - started, finished)
