"""A process that accepts, decodes and patchifies; the engine process does the rest."""

import asyncio
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import NoReturn

from service.app import Backend, assemble_app, open_decoders
from service.errors import StartError
from service.lifecycle import Lifecycle
from service.logs import BackgroundStream, open_log, quiet_libraries
from service.metrics import Metrics
from service.processes.board import Column, watch_processes
from service.processes.follower import Follower
from service.processes.ledger import BoardLedger, BoardSpeed
from service.processes.shared import ENGINE_ROW, Seat, Shared
from service.server import Server, leave, run_loop, server_config
from service.settings import Settings
from service.tracing.opening import open_tracing


def run_http_process(settings: Settings, shared: Shared, report: Connection, seat: Seat, life: int) -> None:
    """Serve HTTP until told to stop; does not return.

    Args:
        settings: everything that can be chosen.
        shared: what all processes have inherited.
        report: is sent None when clients are served, or one line that says why they cannot be.
        seat: of this process.
        life: how often this process has been started, from 1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent passes it on once
    quiet_libraries()
    shared.keep_seat(seat)
    board = shared.board
    stream = BackgroundStream(sys.stderr, lambda lost: board.write(seat.row, Column.LOG_LINES_LOST, lost))
    log = open_log(settings, stream, is_terminal=sys.stderr.isatty()).bind(process=f"http-{seat.row}")
    lifecycle = Lifecycle(shared.engine_up)
    if shared.gate is not None:
        shared.gate.count_as(seat.row - 1)
    metrics = Metrics()
    watch_engine(metrics, shared)
    decoders = open_decoders(settings, metrics, log)

    def give_up(error: StartError) -> NoReturn:
        log.error("models_not_served", reason=str(error))
        stream.close(timeout_s=1.0)
        leave(1)

    follower = Follower(seat, life, shared.engine_up, decoders.open, give_up)
    try:
        run_loop(_greet(follower, shared.alive))
        backend = _connect(shared, seat, follower)
        tracing = open_tracing(settings, log, time.monotonic, f"http-{seat.row}")
        app = assemble_app(settings, backend, decoders, metrics, lifecycle, log, time.monotonic, shared.gate, tracing)
        config = server_config(app, settings, metrics)
    except StartError as error:
        report.send(str(error))
        leave(1)

    def serving() -> None:
        board.write(seat.row, Column.LIFE, life)
        report.send(None)

    server = Server(config, lifecycle, settings.drain_delay_s, (signal.SIGTERM,), serving)
    server.end_with(shared.alive)
    server.run(sockets=[seat.listener])
    stream.close(timeout_s=1.0)
    leave(1 if lifecycle.failed else 0)


async def _greet(follower: Follower, alive: Connection) -> None:
    asyncio.get_running_loop().add_reader(alive, leave, 0)  # the parent is gone, and nobody is served yet
    await follower.greet()
    asyncio.get_running_loop().remove_reader(alive)


def _connect(shared: Shared, seat: Seat, follower: Follower) -> Backend:
    versions = follower.versions()
    seat.slab.cut(each.model.manifest.preprocessing for behind in versions.values() for each in behind)
    return Backend(
        versions=versions,
        default=follower.default,
        speed=BoardSpeed(shared.board),
        ledger=BoardLedger(shared.board, seat.row),
        connect=follower.connect,
        open=follower.open,
        close=follower.close,
    )


def watch_engine(metrics: Metrics, shared: Shared) -> None:
    """The gauges of the engine process, and those of all."""
    board = shared.board
    metrics.watch(
        "engine_patches_per_second",
        "Speed of the engine, moving average",
        lambda: board.read(ENGINE_ROW, Column.PATCHES_PER_S),
    )
    metrics.watch("engine_up", "1 while the engine process is ready", shared.engine_up)
    watch_processes(metrics, board)
