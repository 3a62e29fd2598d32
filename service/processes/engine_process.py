"""The process that owns the scheduler and the engine: one for a device, behind all HTTP processes."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from structlog.typing import FilteringBoundLogger

from model.manifest import Preprocessing
from service.admission import Rate
from service.canary import Canary
from service.errors import DeviceLostError, StartError
from service.library import Library
from service.loaded import Loaded, Loader, OpenEngine
from service.logs import BackgroundStream, open_log, quiet_libraries
from service.metrics import Metrics
from service.observers import EngineObserver
from service.processes.board import Board, Column
from service.processes.desk import Desk
from service.processes.office import Office
from service.processes.shared import ENGINE_ROW, Shared
from service.processes.shelf import Shelf
from service.processes.slab import slots_of
from service.reload import Reloading
from service.replies import name_of
from service.scheduler import BatchReport
from service.server import leave, run_loop
from service.settings import Settings
from service.tracing.opening import FLUSH_S, open_tracing
from service.trial import try_model
from service.watched import Runs, WatchedEngine

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

_T = TypeVar("_T")


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
        report: is sent None when images are taken, or one line that says why they cannot be.
        life: how often this process has been started, from 1.
        http_lives: the same of each HTTP process; 0: not started yet.
        open_engine: loads a model, checks it and warms it up.
    """
    for each in (signal.SIGINT, signal.SIGTERM):  # the parent ends this process, after those that need it
        signal.signal(each, signal.SIG_IGN)
    quiet_libraries()
    shared.keep_engine_side()
    stream = BackgroundStream(sys.stderr, lambda lost: shared.board.write(ENGINE_ROW, Column.LOG_LINES_LOST, lost))
    log = open_log(settings, stream, is_terminal=sys.stderr.isatty()).bind(process="engine")
    metrics = Metrics()
    # No image is told: their HTTP processes hand them to the successor of this process.
    observer = _BoardObserver(metrics, Rate(), log, lambda _: _leave(stream, 1), shared.board)
    tracing = _started(report, lambda: open_tracing(settings, log, time.monotonic, "engine"))
    loader = _open_loader(settings, open_engine, observer, shared.board, tracing)
    library = _started(report, lambda: _load(settings, loader))
    shelf = _fill_shelf(settings, library, life, observer)
    office = Office(shelf, log)
    reloading = Reloading(library, office.switch, metrics, log)
    desks = [Desk(seat.engine_end, seat.slab, shelf, office, reloading, life, log) for seat in shared.seats]

    def ready() -> None:
        loop = asyncio.get_running_loop()
        loader.prepare = lambda spec: _wait_for(office.prepare(spec), loop)
        if not sys.stderr.isatty():  # the parent passes it on
            loop.add_signal_handler(signal.SIGHUP, reloading.soon)
        log.info("models_loaded", default=library.default, models=_names(library))
        report.send(None)

    run_loop(_serve(settings, shared.alive, desks, http_lives, shelf, ready))
    if tracing is not None:
        tracing.close(FLUSH_S)
    # The parent does it too, unless it was killed.
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
    _leave(stream, 0)


def _leave(stream: BackgroundStream, status: int) -> NoReturn:
    stream.close(timeout_s=1.0)
    leave(status)


def _open_loader(
    settings: Settings,
    open_engine: OpenEngine,
    observer: EngineObserver,
    board: Board,
    tracing: "Tracing | None",
) -> Loader:
    """The parent sees on the board since when a batch runs."""
    runs = Runs(time.monotonic, lambda started_s: board.write(ENGINE_ROW, Column.RUN_STARTED_S, started_s))
    check = partial(_check_patch_memory, settings)
    return Loader(open_engine, observer, time.monotonic, lambda engine: WatchedEngine(engine, runs), check, tracing)


def _check_patch_memory(settings: Settings, spec: Preprocessing) -> None:
    slots = slots_of(spec, settings.patch_memory_bytes)
    if slots < settings.max_files:
        raise StartError(
            f"--patch-memory-bytes {settings.patch_memory_bytes} holds {slots} images of a model, but one "
            f"request may have {settings.max_files}: raise it, or lower --max-files"
        )


def _started(report: Connection, start: Callable[[], _T]) -> _T:
    """What it gives; or this process ends, and the parent is told why."""
    try:
        return start()
    except StartError as error:
        report.send(str(error))
        leave(1)


def _load(settings: Settings, loader: Loader) -> Library[Loaded]:
    library = Library(settings, loader, try_model)
    library.load()
    return library


def _fill_shelf(settings: Settings, library: Library[Loaded], life: int, observer: EngineObserver) -> Shelf:
    def watch(loaded: Loaded) -> Coroutine[Any, Any, None]:
        spec, golden_logits = loaded.model.manifest.preprocessing, loaded.engine.golden_logits
        canary = Canary(loaded.queue, spec, golden_logits, observer.device_lost, time.monotonic)
        return canary.watch(settings.canary_interval_s)

    shelf = Shelf(life, library.default, watch if settings.canary_interval_s else None)
    for name, versions in library.versions().items():
        shelf.put(name, versions)
    return shelf


def _names(library: Library[Loaded]) -> list[dict[str, str]]:
    return [name_of(each.model).model_dump() for versions in library.versions().values() for each in versions]


def _wait_for(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    """In the thread of a reload."""
    asyncio.run_coroutine_threadsafe(work, loop).result()


async def _serve(
    settings: Settings,
    alive: Connection,
    desks: Sequence[Desk],
    http_lives: Sequence[int],
    shelf: Shelf,
    ready: Callable[[], None],
) -> None:
    shelf.open()
    for desk, http_life in zip(desks, http_lives, strict=True):
        desk.open(http_life)
    ready()
    await _end_of(alive)
    await _all_left(desks, settings.drain_delay_s + settings.shutdown_grace_s)
    for desk in desks:
        desk.close()
    await shelf.close()


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
