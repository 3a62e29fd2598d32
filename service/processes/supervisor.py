"""The parent of several HTTP processes and their engine process.

    parent ── engine process      scheduler, engine
          ├── HTTP process 1      accepts, decodes, patchifies
          └── HTTP process 2      ...

When the last HTTP process has gone, so does the engine process. If the parent itself is killed, the others end in the
same order.
"""

import os
import signal
import time

from service.access import open_gate
from service.loaded import OpenEngine
from service.processes.board import Board, Column
from service.processes.engine_process import run_engine_process
from service.processes.http_process import run_http_process
from service.processes.parent import END_S, FORK, MOST_FAILED_STARTS, Child, Parent
from service.processes.shared import ENGINE_ROW, Shared, reserve
from service.server import listen
from service.settings import Settings


class Supervisor(Parent):
    """Args: everything that can be chosen, the number of HTTP processes, and what loads the model."""

    def __init__(self, settings: Settings, http_processes: int, open_engine: OpenEngine) -> None:
        gate = open_gate(settings, http_processes)
        board = Board(http_processes)
        listeners = listen(settings, http_processes)
        self._shared: Shared = reserve(board, listeners, settings.patch_memory_bytes, FORK.Pipe(duplex=False), gate)
        self._engine = Child(ENGINE_ROW, "engine")
        self._http = [Child(seat.row, f"http-{seat.row}") for seat in self._shared.seats]
        super().__init__(settings, board, [self._engine, *self._http], self._http, listeners)
        self._open_engine = open_engine
        self._engine_known = False  # an engine process has been ready

    def _start_due(self) -> None:
        now = time.monotonic()
        if self._engine.process is None and now >= self._engine.start_at_s:
            lives = [child.life if child.process is not None else 0 for child in self._http]
            life = self._engine.life + 1
            self._start(self._engine, run_engine_process, self._shared, life, lives, self._open_engine)
        if not self._engine_known or self._draining:
            return
        for child, seat in zip(self._http, self._shared.seats, strict=True):
            if child.process is None and now >= child.start_at_s:
                self._start(child, run_http_process, self._shared, seat, child.life + 1)

    def _has_started(self, child: Child) -> None:
        if child is self._engine:
            self._engine_known = True
            self._board.write(ENGINE_ROW, Column.LIFE, child.life)

    def _has_died(self, child: Child) -> None:
        if child is self._engine and child.failures >= MOST_FAILED_STARTS and not self._draining:
            self._give_up("the engine process does not stay alive")

    def _look_after(self) -> None:
        self._pass_hangup_on()
        self._kill_hung_engine()

    def _pass_hangup_on(self) -> None:
        """The engine process loads everything again; one that is starting may have read some file already."""
        process = self._engine.process
        if self._hangup and self._engine.ready and process is not None and process.pid is not None:
            self._hangup = False
            os.kill(process.pid, signal.SIGHUP)

    def _kill_hung_engine(self) -> None:
        started_s = self._board.read(ENGINE_ROW, Column.RUN_STARTED_S)
        limit_s = self._settings.engine_timeout_s
        if self._engine.process is not None and started_s and time.monotonic() - started_s > limit_s:
            self._log.error("engine_hung", seconds=limit_s)
            self._engine.kill()

    def _end(self) -> None:
        for seat in self._shared.seats:
            seat.engine_end.close()
            seat.http_end.close()
        self._shared.parent.close()
        if self._engine.process is not None:
            self._engine.process.join(END_S)
