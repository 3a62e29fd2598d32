"""A process that is a whole service: it accepts, decodes, and runs the model on its share of the cores."""

import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from service.access import Gate
from service.app import create_app
from service.errors import StartError
from service.lifecycle import Lifecycle
from service.logs import BackgroundStream, open_log, quiet_libraries
from service.neighbours import Neighbours
from service.processes.board import Board, Column, watch_processes
from service.processes.ledger import ReplicaLedger, ReplicaRate
from service.processes.shared_reload import SharedReload
from service.processes.shares import Share, settings_of
from service.server import Server, leave, listen, server_config
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Common:
    """What all replicas inherit.

    Attributes:
        board: numbers that all see.
        port: keeps the port for the replicas, each of which listens there as soon as it can serve.
        shares: of the cores, one for each.
        alive: comes to its end when the parent is gone; nothing is ever sent.
        parent: the other side of `alive`, open in the parent alone.
        gate: None if there are no API keys.
    """

    board: Board
    port: socket.socket
    shares: tuple[Share, ...]
    alive: Connection
    parent: Connection
    gate: Gate | None


def run_replica(settings: Settings, common: Common, line: Connection, row: int, life: int) -> None:
    """Serve until told to stop; does not return.

    Its socket is its own: no connections wait for a replica that is dead, the kernel gives them to the others.

    Args:
        settings: everything that can be chosen, for the whole service.
        common: what all processes have inherited.
        line: to the parent; it is sent None when clients are served, or one line that says why they cannot be.
        row: of this process on the board, from 1.
        life: how often this process has been started, from 1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent passes it on once
    quiet_libraries()
    common.parent.close()
    port = common.port.getsockname()[1]
    common.port.close()
    share, board = common.shares[row - 1], common.board
    if share.cores:
        os.sched_setaffinity(0, share.cores)  # of the threads too, none of which has been started yet
    settings = settings_of(settings, share).model_copy(update={"port": port})
    stream = BackgroundStream(sys.stderr, lambda lost: board.write(row, Column.LOG_LINES_LOST, lost))
    log = open_log(settings, stream, is_terminal=sys.stderr.isatty()).bind(process=f"replica-{row}")
    lifecycle = Lifecycle()
    if common.gate is not None:
        common.gate.count_as(row - 1)
    reloads = SharedReload(line, log)
    try:
        neighbours = Neighbours(common.gate, ReplicaRate(board, row), ReplicaLedger(board, row), reloads.share)
        app = create_app(settings, lifecycle=lifecycle, log=log, neighbours=neighbours)
        watch_processes(app.state.metrics, board)
        config = server_config(app, settings, app.state.metrics)
        listeners = listen(settings, join=True)
    except StartError as error:
        line.send(str(error))
        leave(1)

    def serving() -> None:
        board.write(row, Column.LIFE, life)
        log.info("models_loaded", **app.state.models.facts())
        with suppress(OSError):  # without the parent it ends, and need not say more
            line.send(None)
        reloads.open()

    server = Server(config, lifecycle, settings.drain_delay_s, (signal.SIGTERM,), serving)
    server.end_with(common.alive)
    server.run(sockets=listeners)
    if common.alive.poll():  # the parent was killed, and cannot do it
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
    stream.close(timeout_s=1.0)
    leave(1 if lifecycle.failed else 0)
