"""What is made before the first process is forked, and inherited by all.

Nothing here has a name in the file system: memory is anonymous, sockets come in pairs. The parent keeps everything, so
a process that is started again finds what the one before it had.
"""

import socket
from dataclasses import dataclass
from multiprocessing.connection import Connection

from service.access import Gate
from service.processes.board import Board, Column
from service.processes.slab import PatchSlab

ENGINE_ROW = 0


@dataclass(frozen=True, slots=True)
class Seat:
    """One HTTP process and its place at the engine process.

    Attributes:
        row: on the board, from 1.
        engine_end, http_end: of the connection between the two.
        slab: where it leaves patches.
        listener: where clients connect; every HTTP process has a socket of its own on the same port.
    """

    row: int
    engine_end: socket.socket
    http_end: socket.socket
    slab: PatchSlab
    listener: socket.socket


@dataclass(frozen=True, slots=True)
class Shared:
    """Everything.

    Attributes:
        board: numbers that all see.
        seats: one for each HTTP process.
        alive: comes to its end when the parent is gone; nothing is ever sent.
        parent: the other side of `alive`, open in the parent alone.
        gate: None if there are no API keys.
    """

    board: Board
    seats: tuple[Seat, ...]
    alive: Connection
    parent: Connection
    gate: Gate | None = None

    def engine_up(self) -> bool:
        """Whether an engine process is ready now."""
        return self.board.read(ENGINE_ROW, Column.LIFE) > 0

    def keep_engine_side(self) -> None:
        """In the engine process: close what is not its own, so that others notice when their counterpart ends."""
        self.parent.close()
        for seat in self.seats:
            seat.http_end.close()
            seat.listener.close()

    def keep_seat(self, mine: Seat) -> None:
        """The same in an HTTP process."""
        self.parent.close()
        for seat in self.seats:
            seat.engine_end.close()
            if seat is not mine:
                seat.http_end.close()
                seat.listener.close()


def reserve(
    board: Board,
    listeners: list[socket.socket],
    slab_bytes: int,
    ends: tuple[Connection, Connection],
    gate: Gate | None = None,
) -> Shared:
    """A seat for every listening socket.

    Args:
        board: with a row for each of them.
        listeners: on one port.
        slab_bytes: patch memory of each.
        ends: `alive` and `parent`.
        gate: opened for as many processes.
    """
    seats = []
    for row, listener in enumerate(listeners, 1):
        engine_end, http_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        engine_end.setblocking(False)
        http_end.setblocking(False)
        seats.append(Seat(row, engine_end, http_end, PatchSlab(slab_bytes), listener))
    return Shared(board, tuple(seats), *ends, gate)
