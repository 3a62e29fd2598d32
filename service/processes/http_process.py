"""A process that accepts, decodes and patchifies; the engine process does the rest."""

import signal
import sys
import time
from multiprocessing.connection import Connection

from service.app import Backend, assemble_app, open_decoders
from service.engine import Model
from service.errors import StartError
from service.lifecycle import Lifecycle
from service.logs import BackgroundStream, open_log, quiet_libraries
from service.metrics import Metrics
from service.models import Behind
from service.processes.board import Column
from service.processes.ledger import BoardLedger, BoardSpeed
from service.processes.remote import RemoteQueue
from service.processes.shared import ENGINE_ROW, Seat, Shared
from service.reload import never_reload
from service.server import Server, leave, server_config
from service.settings import Settings


def run_http_process(
    settings: Settings, shared: Shared, report: Connection, seat: Seat, life: int, model: Model
) -> None:
    """Serve HTTP until told to stop; does not return.

    Args:
        settings: everything that can be chosen.
        shared: what all processes have inherited.
        report: is sent None when clients are served, or one line that says why they cannot be.
        seat: of this process.
        life: how often this process has been started, from 1.
        model: what the engine process runs.
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
    watch_board(metrics, shared)
    try:
        seat.slab.cut(model.manifest)
        backend = _connect(shared, seat, life, model)
        decoders = open_decoders(settings, metrics, log)
        app = assemble_app(settings, backend, decoders, metrics, lifecycle, log, time.monotonic, shared.gate)
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
    leave(0)


def _connect(shared: Shared, seat: Seat, life: int, model: Model) -> Backend:
    queue = RemoteQueue(seat.http_end, seat.slab, life, shared.engine_up)

    async def close() -> None:
        queue.close()

    name = model.manifest.name
    return Backend(
        versions={name: [Behind(model, queue, seat.slab, close)]},
        default=name,
        speed=BoardSpeed(shared.board),
        ledger=BoardLedger(shared.board, seat.row),
        connect=lambda _: never_reload,
        open=queue.open,
        close=_nothing,
    )


async def _nothing() -> None:
    """The model has closed the connection."""


def watch_board(metrics: Metrics, shared: Shared) -> None:
    """The gauges that whichever process is asked answers for all."""
    board = shared.board
    metrics.watch(
        "engine_patches_per_second",
        "Speed of the engine, moving average",
        lambda: board.read(ENGINE_ROW, Column.PATCHES_PER_S),
    )
    metrics.watch("log_lines_lost", "Log lines that could not be written", lambda: board.total(Column.LOG_LINES_LOST))
    metrics.watch("engine_up", "1 while the engine process is ready", shared.engine_up)
    metrics.watch(
        "http_processes_up",
        "HTTP processes that serve",
        lambda: sum(board.read(seat.row, Column.LIFE) > 0 for seat in shared.seats),
    )
    metrics.watch("process_restarts", "Processes started again after they died", lambda: board.total(Column.RESTARTS))
