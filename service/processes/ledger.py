"""Admission's numbers when a service has several processes: each writes its row of the board."""

from service.admission import Ledger, Rate, Speed
from service.processes.board import Board, Column
from service.processes.shared import ENGINE_ROW


class BoardLedger(Ledger):
    """What this process and the others hold. Args: the board, and the row of this process."""

    def __init__(self, board: Board, row: int) -> None:
        super().__init__()
        self._board = board
        self._row = row

    @property
    def all_queue_patches(self) -> int:
        """Patches accepted and not yet answered, of all processes."""
        return int(self._board.total(Column.QUEUE_PATCHES))

    @property
    def all_upload_bytes(self) -> int:
        """Bytes of uploads in memory, of all processes."""
        return int(self._board.total(Column.UPLOAD_BYTES))

    def add_patches(self, count: int) -> None:
        """Count patches in, or out when negative."""
        super().add_patches(count)
        self._board.write(self._row, Column.QUEUE_PATCHES, self.queue_patches)

    def add_bytes(self, count: int) -> None:
        """Count bytes of uploads in, or out when negative."""
        super().add_bytes(count)
        self._board.write(self._row, Column.UPLOAD_BYTES, self.upload_bytes)


class BoardSpeed(Speed):
    """Patches a second as the engine process has learnt it. Args: the board."""

    def __init__(self, board: Board) -> None:
        self._board = board

    @property
    def per_s(self) -> float:
        """Patches a second; 0 while nothing is known."""
        return self._board.read(ENGINE_ROW, Column.PATCHES_PER_S)


class ReplicaLedger(BoardLedger):
    """Of a process with an engine of its own: limits are those of the service, waiting is for its own engine."""

    @property
    def engine_queue_patches(self) -> int:
        """Patches before the engine of this process."""
        return self.queue_patches


class ReplicaRate(Rate):
    """Speed of the engine in this process, shown to the others. Args: the board, and the row of this process."""

    def __init__(self, board: Board, row: int) -> None:
        super().__init__()
        self._board = board
        self._row = row

    def observe(self, units: float, seconds: float) -> None:
        """Learn that `units` took `seconds`."""
        super().observe(units, seconds)
        self._board.write(self._row, Column.PATCHES_PER_S, self.per_s)

    @property
    def all_per_s(self) -> float:
        """The same of all engines of the service."""
        return self._board.total(Column.PATCHES_PER_S)
