"""Numbers that all processes of the service see: one row a process, each cell written by one process only.

Cells are aligned 8-byte floats, which this machine's processors write at once; no lock is needed, and sums over rows
may be late by a moment but never torn.
"""

import enum
import mmap
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.metrics import Metrics

_CELLS = 8


class Column(enum.IntEnum):
    """What a cell holds."""

    LIFE = 0  # how often this process has been started; 0 while it is not ready
    QUEUE_PATCHES = 1
    UPLOAD_BYTES = 2
    LOG_LINES_LOST = 3
    PATCHES_PER_S = 4  # of the engine
    RESTARTS = 5
    RUN_STARTED_S = 6  # of the oldest batch in the engine, monotonic; 0: idle


class Board:
    """Row 0 is the engine process, row i the HTTP process i; of replicas each is one of these, and row 0 stays empty.

    Args:
        http_processes: rows after the engine's.
    """

    def __init__(self, http_processes: int) -> None:
        memory = mmap.mmap(-1, 8 * _CELLS * (1 + http_processes))  # shared with every process forked from this one
        self._cells: NDArray[np.float64] = np.frombuffer(memory, np.float64).reshape(-1, _CELLS)

    def read(self, row: int, column: Column) -> float:
        """One cell."""
        return float(self._cells[row, column])

    def write(self, row: int, column: Column, value: float) -> None:
        """Set a cell; only the process of this row, or its parent while that process is dead, may do so."""
        self._cells[row, column] = value

    def total(self, column: Column) -> float:
        """The sum over all processes."""
        return float(self._cells[:, column].sum())

    def living(self) -> int:
        """How many processes that serve HTTP are ready."""
        return int((self._cells[1:, Column.LIFE] > 0).sum())

    def clear(self, row: int) -> None:
        """A process has died: nothing of its work is left. Its count of restarts stays."""
        restarts = self._cells[row, Column.RESTARTS]
        self._cells[row] = 0
        self._cells[row, Column.RESTARTS] = restarts


def watch_processes(metrics: Metrics, board: Board) -> None:
    """The gauges of processes, which whichever of them is asked answers for all."""
    lost, restarts = partial(board.total, Column.LOG_LINES_LOST), partial(board.total, Column.RESTARTS)
    metrics.watch("log_lines_lost", "Log lines that could not be written", lost)
    metrics.watch("process_restarts", "Processes started again after they died", restarts)
    metrics.watch("http_processes_up", "HTTP processes that serve", board.living)
