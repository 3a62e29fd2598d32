"""The process that owns the scheduler and the engine: one for a device, behind all HTTP processes."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import NoReturn

from structlog.typing import FilteringBoundLogger

from service.admission import Rate
from service.canary import Canary
from service.engine import Model
from service.errors import DeviceLostError, StartError
from service.loaded import OpenEngine, batch_limits
from service.logs import BackgroundStream, open_log, quiet_libraries
from service.metrics import Metrics
from service.observers import EngineObserver
from service.processes.board import Board, Column
from service.processes.desk import Desk
from service.processes.shared import ENGINE_ROW, Shared
from service.runner import BatchRunner
from service.scheduler import BatchReport, Scheduler
from service.server import leave, run_loop
from service.settings import Settings
from service.watched import WatchedEngine


def run_engine_process(
    settings: Settings,
    shared: Shared,
    report: Connection,
    life: int,
    http_lives: Sequence[int],
    open_engine: OpenEngine,
) -> None:
    """Serve the seats until the parent is gone; does not return.

    Args:
        settings: everything that can be chosen.
        shared: what all processes have inherited.
        report: is sent the model, or one line that says why there is none.
        life: how often this process has been started, from 1.
        http_lives: the same of each HTTP process; 0: not started yet.
        open_engine: loads the model, checks it and warms it up.
    """
    for each in (signal.SIGINT, signal.SIGTERM):  # the parent ends this process, after those that need it
        signal.signal(each, signal.SIG_IGN)
    quiet_libraries()
    shared.keep_engine_side()
    stream = BackgroundStream(sys.stderr, lambda lost: shared.board.write(ENGINE_ROW, Column.LOG_LINES_LOST, lost))
    log = open_log(settings, stream, is_terminal=sys.stderr.isatty()).bind(process="engine")
    try:
        engine = open_engine(settings)
        if settings.default_model not in {None, engine.model.manifest.name}:
            raise StartError(f"--default-model: there is no such model, only {engine.model.manifest.name}")  # noqa: TRY301
        _cut_slabs(settings, shared, engine.model)
        watched = WatchedEngine(
            engine, time.monotonic, lambda started_s: shared.board.write(ENGINE_ROW, Column.RUN_STARTED_S, started_s)
        )
        limits = batch_limits(settings, engine.model, engine.lanes)
        runner = BatchRunner(watched, time.monotonic, engine.open_memory(limits), engine.lanes.number)
        runner.warm_up()
        watched.seen = True
    except StartError as error:
        report.send(str(error))
        leave(1)
    # No image is told: their HTTP processes hand them to the successor of this process.
    observer = _BoardObserver(Metrics(), Rate(), log, lambda _: _leave_sick(stream), shared.board)
    scheduler = Scheduler(runner.run, limits, time.monotonic, observer, engine.lanes)
    desks = [
        Desk(seat.engine_end, seat.slab, scheduler, life, lambda: log.error("bad_submission")) for seat in shared.seats
    ]
    canary = Canary(
        scheduler, engine.model.manifest.preprocessing, engine.golden_logits, observer.device_lost, time.monotonic
    )
    run_loop(_serve(settings, shared.alive, desks, http_lives, scheduler, canary, lambda: report.send(engine.model)))
    runner.close()
    stream.close(timeout_s=1.0)
    # The parent does it too, unless it was killed.
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
    leave(0)


def _leave_sick(stream: BackgroundStream) -> NoReturn:
    stream.close(timeout_s=1.0)
    leave(1)


def _cut_slabs(settings: Settings, shared: Shared, model: Model) -> None:
    for seat in shared.seats:
        slots = seat.slab.cut(model.manifest)
        if slots < settings.max_files:
            raise StartError(
                f"--patch-memory-bytes {settings.patch_memory_bytes} holds {slots} images of this model, but one "
                f"request may have {settings.max_files}: raise it, or lower --max-files"
            )


async def _serve(
    settings: Settings,
    alive: Connection,
    desks: Sequence[Desk],
    http_lives: Sequence[int],
    scheduler: Scheduler,
    canary: Canary,
    ready: Callable[[], None],
) -> None:
    for desk, http_life in zip(desks, http_lives, strict=True):
        desk.open(http_life)
    ready()
    watching = asyncio.create_task(canary.watch(settings.canary_interval_s)) if settings.canary_interval_s else None
    await _end_of(alive)
    await _all_left(desks, settings.drain_delay_s + settings.shutdown_grace_s)
    for desk in desks:
        desk.close()
    if watching is not None:
        watching.cancel()
    await scheduler.close()


async def _end_of(alive: Connection) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(alive, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(alive)


async def _all_left(desks: Sequence[Desk], timeout_s: float) -> None:
    """If the parent was killed, the HTTP processes are finishing what they had accepted."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            for desk in desks:
                await desk.left.wait()


class _BoardObserver(EngineObserver):
    """Shows the learnt speed to the HTTP processes."""

    def __init__(
        self,
        metrics: Metrics,
        rate: Rate,
        log: FilteringBoundLogger,
        lost: Callable[[DeviceLostError], None],
        board: Board,
    ) -> None:
        super().__init__(metrics, rate, log, lost)
        self._speed = rate
        self._board = board

    def batch_ran(self, report: BatchReport) -> None:
        super().batch_ran(report)
        self._board.write(ENGINE_ROW, Column.PATCHES_PER_S, self._speed.per_s)
