"""The parent of all processes: starts them, starts them again when they die, and ends them in the right order.

    parent ── engine process      scheduler, engine
          ├── HTTP process 1      accepts, decodes, patchifies
          └── HTTP process 2      ...

It has no event loop and no threads, because it forks. The end: SIGTERM or Ctrl-C is passed on to the HTTP processes,
which drain; when the last one has gone, so does the engine process. A second signal ends everything at once. If the
parent itself is killed, the others notice and end in the same order.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any

from prometheus_client.multiprocess import mark_process_dead
from structlog.typing import FilteringBoundLogger

from service.access import open_gate
from service.errors import StartError
from service.loaded import OpenEngine
from service.logs import open_log, standard_error
from service.processes.board import Board, Column
from service.processes.engine_process import run_engine_process
from service.processes.http_process import run_http_process
from service.processes.shared import ENGINE_ROW, Shared, reserve
from service.server import announce, listen
from service.settings import Settings

_FORK = multiprocessing.get_context("fork")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TICK_S = 0.25
_LONGEST_PAUSE_S = 5.0
_STEADY_S = 10.0  # a process that lived this long did not die of its start
_MOST_FAILED_STARTS = 5  # of the engine, one after the other
_ENGINE_END_S = 3.0


@dataclass(slots=True, eq=False)
class _Child:
    """One row of the board: a process, and its successors when it dies."""

    row: int
    name: str
    process: ForkProcess | None = None
    report: Connection | None = None
    life: int = 0
    ready: bool = False
    started_s: float = 0.0
    failures: int = 0  # deaths in a row, each soon after the start
    start_at_s: float = 0.0


class Supervisor:
    """Args: everything that can be chosen, the number of HTTP processes, and what loads the model."""

    def __init__(self, settings: Settings, http_processes: int, open_engine: OpenEngine) -> None:
        self._settings = settings
        self._open_engine = open_engine
        self._log: FilteringBoundLogger = open_log(settings, standard_error(), is_terminal=False)
        gate = open_gate(settings, http_processes)
        board = Board(http_processes)
        listeners = listen(settings, http_processes)
        ends = _FORK.Pipe(duplex=False)
        self._shared: Shared = reserve(board, listeners, settings.patch_memory_bytes, ends, gate)
        self._engine = _Child(ENGINE_ROW, "engine")
        self._http = [_Child(seat.row, f"http-{seat.row}") for seat in self._shared.seats]
        self._engine_known = False  # an engine process has been ready
        self._hangup = False  # a SIGHUP that the engine process has not been told of
        self._announced = False
        self._signals = 0
        self._give_up_s = float("inf")
        self._wake, self._waker = os.pipe()

    def run(self) -> int:
        """Serve until told to stop.

        Returns:
            The status to exit with.

        Raises:
            StartError: if the service cannot start.
        """
        self._take_signals()
        try:
            while not self._over():
                self._start_due()
                self._take_reports(set(wait(self._to_watch(), _TICK_S)))
                self._bury_dead()
                self._pass_hangup_on()
                self._kill_hung_engine()
        except StartError:
            self._kill_all()
            raise
        self._end_engine()
        self._log.info("stopped")
        return 0 if self._engine.failures < _MOST_FAILED_STARTS else 1

    # --- signals ------------------------------------------------------------------------------------------------------
    def _take_signals(self) -> None:
        os.set_blocking(self._waker, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._waker)
        for each in _SIGNALS:
            signal.signal(each, self._on_signal)
        if not sys.stderr.isatty():  # on a terminal it says that the terminal is gone
            signal.signal(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self, _: int, __: FrameType | None) -> None:
        self._hangup = True

    def _pass_hangup_on(self) -> None:
        """The engine process loads everything again; one that is starting may have read some file already."""
        process = self._engine.process
        if self._hangup and self._engine.ready and process is not None and process.pid is not None:
            self._hangup = False
            os.kill(process.pid, signal.SIGHUP)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            self._kill_all()
            raise SystemExit(128 + number)
        self._drain()

    def _drain(self) -> None:
        """The HTTP processes end by themselves; for connections that come now there is nobody."""
        longest_s = self._settings.drain_delay_s + self._settings.shutdown_grace_s + _ENGINE_END_S
        self._give_up_s = time.monotonic() + longest_s
        for seat in self._shared.seats:
            seat.listener.close()
        for child in self._http:
            if child.process is not None:
                child.process.terminate()

    @property
    def _draining(self) -> bool:
        return self._give_up_s < float("inf")

    def _over(self) -> bool:
        gone = all(child.process is None for child in self._http)
        return self._draining and (gone or time.monotonic() > self._give_up_s)

    # --- life ---------------------------------------------------------------------------------------------------------
    def _start_due(self) -> None:
        now = time.monotonic()
        if self._engine.process is None and now >= self._engine.start_at_s:
            self._start_engine()
        if not self._engine_known or self._draining:
            return
        for child, seat in zip(self._http, self._shared.seats, strict=True):
            if child.process is None and now >= child.start_at_s:
                self._start(child, run_http_process, seat, child.life + 1)

    def _start_engine(self) -> None:
        lives = [child.life if child.process is not None else 0 for child in self._http]
        self._start(self._engine, run_engine_process, self._engine.life + 1, lives, self._open_engine)

    def _start(self, child: _Child, target: Callable[..., None], *arguments: Any) -> None:
        child.report, their_end = _FORK.Pipe(duplex=False)
        child.life += 1
        child.started_s = time.monotonic()
        everything = (target, self._settings, self._shared, their_end, *arguments)
        child.process = _FORK.Process(target=_in_child, args=everything, daemon=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the child has let go of our handlers
        child.process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        their_end.close()

    def _to_watch(self) -> list[Any]:
        children = [self._engine, *self._http]
        sentinels = [child.process.sentinel for child in children if child.process is not None]
        return [self._wake, *sentinels, *(child.report for child in children if child.report is not None)]

    def _take_reports(self, events: set[Any]) -> None:
        if self._wake in events:
            os.read(self._wake, 4096)
        for child in [self._engine, *self._http]:
            if child.report is None or child.report not in events:
                continue
            try:
                said = child.report.recv()
            except EOFError:
                said = "it died while starting"
            child.report.close()
            child.report = None
            self._hear(child, said)

    def _hear(self, child: _Child, reason: str | None) -> None:
        """None is good news; a text is why there is none."""
        if reason is not None:
            self._bad_start(child, reason)
            return
        if child is self._engine:
            self._engine_known = True
            self._shared.board.write(ENGINE_ROW, Column.LIFE, child.life)
        child.ready = True
        if child.life > 1:
            self._log.info("process_started", process=child.name, life=child.life)
        if not self._announced and all(each.ready for each in self._http):
            self._announced = True
            announce(self._shared.seats[0].listener)

    def _bad_start(self, child: _Child, reason: str) -> None:
        if not self._announced:
            raise StartError(reason)
        self._log.error("process_not_started", process=child.name, reason=reason)

    def _bury_dead(self) -> None:
        for child in [self._engine, *self._http]:
            if child.process is not None and child.process.exitcode is not None:
                self._bury(child, child.process)

    def _bury(self, child: _Child, process: ForkProcess) -> None:
        self._shared.board.clear(child.row)
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
        child.process, child.ready = None, False
        if self._draining and child is not self._engine:
            return
        lived_s = time.monotonic() - child.started_s
        child.failures = 0 if lived_s > _STEADY_S else child.failures + 1
        child.start_at_s = time.monotonic() + min(_LONGEST_PAUSE_S, 0.05 * 2**child.failures)
        restarts = self._shared.board.read(child.row, Column.RESTARTS)
        self._shared.board.write(child.row, Column.RESTARTS, restarts + 1)
        self._log.error("process_died", process=child.name, status=process.exitcode)
        if child is self._engine and child.failures >= _MOST_FAILED_STARTS and not self._draining:
            self._log.error("giving_up", reason="the engine process does not stay alive")
            self._drain()

    def _kill_hung_engine(self) -> None:
        started_s = self._shared.board.read(ENGINE_ROW, Column.RUN_STARTED_S)
        limit_s = self._settings.engine_timeout_s
        if self._engine.process is not None and started_s and time.monotonic() - started_s > limit_s:
            self._log.error("engine_hung", seconds=limit_s)
            self._engine.process.kill()
            self._engine.process.join()

    # --- the end ------------------------------------------------------------------------------------------------------
    def _end_engine(self) -> None:
        for seat in self._shared.seats:
            seat.engine_end.close()
            seat.http_end.close()
        self._shared.parent.close()
        if self._engine.process is not None:
            self._engine.process.join(_ENGINE_END_S)
        self._kill_all()

    def _kill_all(self) -> None:
        for child in [self._engine, *self._http]:
            if child.process is not None and child.process.is_alive():
                child.process.kill()
                child.process.join()


def _in_child(target: Callable[..., None], *arguments: Any) -> None:
    """The parent's signal handling ends here."""
    signal.set_wakeup_fd(-1)
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    if callable(signal.getsignal(signal.SIGHUP)):  # the parent alone says what a SIGHUP does
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    target(*arguments)
