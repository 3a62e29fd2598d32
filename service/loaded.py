"""One model on the side of the engine: opened, checked, warm, with a queue of its own.

All models of a service share the lanes of the engine (`service.runner.EngineRoom`), so their batches take turns, and
the speed that admission learns is that of the whole.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from model.manifest import Preprocessing
from service.batching import BatchLimits, Lanes
from service.buffers import BatchMemory
from service.engine import Engine, Model
from service.errors import StartError
from service.extras import Answers, Extras
from service.runner import ArrayEngine, BatchRunner, EngineRoom
from service.scheduler import Scheduler, SchedulerObserver
from service.settings import Settings
from service.tracing.batches import BatchSpans

if TYPE_CHECKING:
    from service.tracing.spans import Tracing


class WarmEngine(Protocol):
    """The part of `service.engine.Engine` that is needed here."""

    model: Model
    lanes: Lanes
    golden_logits: NDArray[np.float32]

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        """Logits, float32 [B, C]; on all cores if it is `alone`."""

    def infer(
        self, patches: NDArray[np.uint8], grid: NDArray[np.int64], extras: Extras, *, alone: bool = True
    ) -> Answers:
        """Logits and what else is wanted."""

    def open_memory(self, limits: BatchLimits) -> BatchMemory:
        """Where batches are written, and the shapes that they are padded to."""

    def close(self) -> None:
        """Give the memory of the model back."""


OpenEngine = Callable[[Settings], WarmEngine]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model behind its queue.

    Attributes:
        model: what it is.
        queue: takes patch sequences, answers with the best classes.
        runner: runs its batches.
        engine: the model itself.
    """

    model: Model
    queue: Scheduler
    runner: BatchRunner
    engine: WarmEngine

    async def close(self) -> None:
        """Let running batches end, fail what waits, and give the memory back."""
        await self.queue.close()
        await asyncio.to_thread(self.discard)  # freeing a large model takes longer than the event loop may wait

    def discard(self) -> None:
        """Give the memory back of a model that nobody has used, or whose queue is closed."""
        self.runner.close()
        self.engine.close()


class Loader:
    """Opens models that share one engine.

    Args:
        open_engine: loads a model, checks it and warms it up.
        observer: told what happens in the queue of any model.
        clock: monotonic, seconds.
        watch: puts something between a warm engine and its batches.
        prepare: gets ready what else images for the model need; raises StartError.
        tracing: makes a span of every batch; None: nobody wants any.
    """

    def __init__(
        self,
        open_engine: OpenEngine,
        observer: SchedulerObserver,
        clock: Callable[[], float],
        watch: Callable[[WarmEngine], ArrayEngine] = lambda engine: engine,
        prepare: Callable[[Preprocessing], object] = lambda _: None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._open_engine = open_engine
        self._observer = observer
        self._clock = clock
        self._watch = watch
        self.prepare = prepare
        self._tracing = tracing
        self._room: EngineRoom | None = None

    def __call__(self, settings: Settings) -> Loaded:
        """Open the model of the settings, ready for its first request; may be called in any thread.

        Raises:
            StartError: if the model, the provider or the settings cannot serve.
        """
        engine = self._open_engine(settings)
        try:
            self.prepare(engine.model.manifest.preprocessing)
            return self._put_behind_queue(settings, engine)
        except StartError:
            engine.close()
            raise

    def _put_behind_queue(self, settings: Settings, engine: WarmEngine) -> Loaded:
        lanes = engine.lanes
        self._room = self._room or EngineRoom(self._clock, lanes.number)
        limits = batch_limits(settings, engine.model, lanes)
        memory = engine.open_memory(limits)
        runner = BatchRunner(engine, self._clock, memory, lanes.number, self._room)
        runner.warm_up()
        runner = BatchRunner(self._watch(engine), self._clock, memory, lanes.number, self._room)
        observer = self._observer if self._tracing is None else BatchSpans(self._observer, self._tracing, engine.model)
        scheduler = Scheduler(runner.run, limits, self._clock, observer, lanes)
        return Loaded(engine.model, scheduler, runner, engine)


def open_engine(settings: Settings, engine: Engine | None = None) -> Engine:
    """The engine of the settings, or this one, checked and warm.

    Raises:
        StartError: if the model, the provider or the settings cannot serve.
    """
    engine = engine or Engine(settings)
    check_budgets(settings, engine.model)
    engine.warm_up()
    return engine


def batch_limits(settings: Settings, model: Model, lanes: Lanes) -> BatchLimits:
    """What one batch of this model may hold; a larger image goes alone."""
    return BatchLimits(
        settings.batch_patches(lanes.number),
        settings.max_batch_images,
        settings.overhead_patches(lanes.number),
        model.manifest.mixed_grids,
    )


def check_budgets(settings: Settings, model: Model) -> None:
    """A request that could never be accepted is a wrong setting, not an overload.

    Raises:
        StartError: naming the setting.
    """
    if settings.default_timeout_ms > settings.max_timeout_ms:
        raise StartError(f"--default-timeout-ms is over --max-timeout-ms, {settings.max_timeout_ms}")
    needed = model.manifest.preprocessing.max_patches
    for flag, value in (
        ("--max-batch-patches", settings.max_batch_patches),
        ("--max-queue-patches", settings.max_queue_patches),
    ):
        if value is not None and value < needed:
            raise StartError(f"{flag} is {value}, but one image of this model may have {needed} patches")
