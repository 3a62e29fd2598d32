"""The parent of all processes of a service: starts them, starts them again when they die, and ends them.

It has no event loop and no threads, because it forks. The end: SIGTERM or Ctrl-C is passed on to the processes that
serve, which drain. A second signal ends everything at once. If the parent itself is killed, the others notice and
drain too.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Any

from prometheus_client.multiprocess import mark_process_dead
from structlog.typing import FilteringBoundLogger

from service.errors import StartError
from service.logs import open_log, standard_error
from service.processes.board import Board, Column
from service.server import announce
from service.settings import Settings

FORK = multiprocessing.get_context("fork")
MOST_FAILED_STARTS = 5  # one after the other
END_S = 3.0  # what is left of a process after its grace period
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TICK_S = 0.25
_MOST_BYTES = 1 << 24  # that a child says at a time
_LONGEST_PAUSE_S = 5.0
_STEADY_S = 10.0  # a process that lived this long did not die of its start


@dataclass(slots=True, eq=False)
class Child:
    """One row of the board: a process, and its successors when it dies.

    Attributes:
        row: on the board.
        name: for the log.
        process: None while there is none.
        line: to the process; what comes first is None if it serves, or a text that says why it cannot.
        life: how often it has been started.
        ready: whether it serves.
        failures: deaths in a row, each soon after the start.
    """

    row: int
    name: str
    process: ForkProcess | None = None
    line: Connection | None = None
    life: int = 0
    ready: bool = False
    started_s: float = 0.0
    failures: int = 0
    start_at_s: float = 0.0

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.join()

    def hang_up(self) -> None:
        """Close the line."""
        if self.line is not None:
            self.line.close()
            self.line = None


class Parent:
    """What services of several processes have in common.

    Args:
        settings: everything that can be chosen.
        board: has a row for every child.
        children: in the order in which they are looked at.
        serving: those of them that take connections; the service is there when all of them are ready.
        listeners: where clients connect, kept for successors until the end begins.
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        children: Sequence[Child],
        serving: Sequence[Child],
        listeners: Sequence[socket.socket],
    ) -> None:
        self._settings = settings
        self._board = board
        self._children = children
        self._serving = serving
        self._listeners = listeners
        self._log: FilteringBoundLogger = open_log(settings, standard_error(), is_terminal=False)
        self._hangup = False  # a SIGHUP that nobody has been told of
        self._announced = False
        self._gave_up = False
        self._signals = 0
        self._kill_at_s = float("inf")
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
                self._look_after()
        except StartError:
            self._kill_all()
            raise
        self._end()
        self._kill_all()
        self._log.info("stopped")
        return 1 if self._gave_up else 0

    # --- what kinds of services differ in -----------------------------------------------------------------------------
    def _start_due(self) -> None:
        """Start what is not there and may be."""

    def _look_after(self) -> None:
        """Whatever else is to be done in a turn."""

    def _end(self) -> None:
        """Those that served are gone."""

    def _has_started(self, child: Child) -> None:
        """A child is ready."""

    def _hear(self, child: Child, said: bytes) -> None:
        """A child that is ready has said something."""

    def _has_died(self, child: Child) -> None:
        """A child is gone, and its row is clear."""

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

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            self._kill_all()
            raise SystemExit(128 + number)
        self._drain()

    def _drain(self) -> None:
        """Those that serve end by themselves; for connections that come now there is nobody."""
        self._kill_at_s = time.monotonic() + self._settings.drain_delay_s + self._settings.shutdown_grace_s + END_S
        for listener in self._listeners:
            listener.close()
        for child in self._serving:
            if child.process is not None:
                child.process.terminate()

    def _give_up(self, reason: str) -> None:
        self._log.error("giving_up", reason=reason)
        self._gave_up = True
        self._drain()

    @property
    def _draining(self) -> bool:
        return self._kill_at_s < float("inf")

    def _over(self) -> bool:
        gone = all(child.process is None for child in self._serving)
        return self._draining and (gone or time.monotonic() > self._kill_at_s)

    # --- life ---------------------------------------------------------------------------------------------------------
    def _start(self, child: Child, target: Callable[..., None], shared: object, *arguments: Any) -> None:
        child.line, their_end = FORK.Pipe()
        child.life += 1
        child.started_s = time.monotonic()
        ours = [each.line for each in self._children if each.line is not None]
        everything = (ours, target, self._settings, shared, their_end, *arguments)
        child.process = FORK.Process(target=_in_child, args=everything, daemon=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the child has let go of our handlers
        child.process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        their_end.close()

    def _to_watch(self) -> list[Any]:
        sentinels = [child.process.sentinel for child in self._children if child.process is not None]
        return [self._wake, *sentinels, *(child.line for child in self._children if child.line is not None)]

    def _take_reports(self, events: set[Any]) -> None:
        if self._wake in events:
            os.read(self._wake, 4096)
        for child in self._children:
            if child.line is not None and child.line in events:
                self._listen_to(child, child.line)

    def _listen_to(self, child: Child, line: Connection) -> None:
        """The first word is a pickle; later a child decodes hostile files, and nothing that it says is unpickled."""
        reason: str | None = "it died while starting"
        try:
            if child.ready:
                self._hear(child, line.recv_bytes(_MOST_BYTES))
                return
            reason = line.recv()
        except (EOFError, OSError):
            child.hang_up()
        if child.ready:
            return
        if reason is None:
            self._welcome(child)
        else:
            self._refuse(child, reason)

    def _welcome(self, child: Child) -> None:
        child.ready = True
        if child.life > 1:
            self._log.info("process_started", process=child.name, life=child.life)
        self._has_started(child)
        if not self._announced and all(each.ready for each in self._serving):
            self._announced = True
            announce(self._listeners[0])

    def _refuse(self, child: Child, reason: str) -> None:
        child.hang_up()
        if self._draining:  # it was told to end before it had started
            return
        if not self._announced:
            raise StartError(reason)
        self._log.error("process_not_started", process=child.name, reason=reason)

    def _bury_dead(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.exitcode is not None:
                self._bury(child, child.process)

    def _bury(self, child: Child, process: ForkProcess) -> None:
        self._board.clear(child.row)
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
        child.hang_up()
        child.process, child.ready = None, False
        if not self._draining or child not in self._serving:
            self._plan_successor(child, process)
        self._has_died(child)

    def _plan_successor(self, child: Child, process: ForkProcess) -> None:
        lived_s = time.monotonic() - child.started_s
        child.failures = 0 if lived_s > _STEADY_S else child.failures + 1
        child.start_at_s = time.monotonic() + min(_LONGEST_PAUSE_S, 0.05 * 2**child.failures)
        restarts = self._board.read(child.row, Column.RESTARTS)
        self._board.write(child.row, Column.RESTARTS, restarts + 1)
        self._log.error("process_died", process=child.name, status=process.exitcode)

    def _kill_all(self) -> None:
        for child in self._children:
            child.kill()


def _in_child(ours: Sequence[Connection], target: Callable[..., None], *arguments: Any) -> None:
    """The parent's signal handling ends here, and so do its lines to all children."""
    signal.set_wakeup_fd(-1)
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    if callable(signal.getsignal(signal.SIGHUP)):  # the parent alone says what a SIGHUP does
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    for line in ours:
        line.close()
    target(*arguments)
