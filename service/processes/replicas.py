"""The parent of replicas: complete services in processes of their own that listen on one port.

    parent ── replica 1      HTTP, decoding, scheduler, engine, on its share of the cores
          ├── replica 2      ...

Threads of one process wait for its interpreter lock, across cores; with a small model that is most of what they do.
"""

import os
import time
from contextlib import suppress

from service.access import open_gate
from service.cores import usable_cores
from service.processes.board import Board
from service.processes.documents import ReloadCall, ReloadEnd, read_document, write_document
from service.processes.parent import FORK, MOST_FAILED_STARTS, Child, Parent
from service.processes.relay import Relay
from service.processes.replica_process import Common, run_replica
from service.processes.shares import divide
from service.server import listen, share
from service.settings import Settings


class Replicas(Parent):
    """Args: everything that can be chosen."""

    def __init__(self, settings: Settings) -> None:
        number = settings.replicas
        gate = open_gate(settings, number)
        (port,) = listen(settings)
        share(port)
        shares = divide(os.sched_getaffinity(0), usable_cores(), number)
        self._common = Common(Board(number), port, tuple(shares), *FORK.Pipe(duplex=False), gate)
        self._replicas = [Child(row, f"replica-{row}") for row in range(1, 1 + number)]
        super().__init__(settings, self._common.board, self._replicas, self._replicas, [port])
        self._relay = Relay(self._ready_rows, self._say, self._replace, time.monotonic)

    def _start_due(self) -> None:
        for child in self._replicas:
            if child.process is None and not self._draining and time.monotonic() >= child.start_at_s:
                self._start(child, run_replica, self._common, child.row, child.life + 1)

    def _has_started(self, child: Child) -> None:
        """A successor has opened what the files are now, and the others may have opened them before."""
        self._hangup |= self._announced

    def _has_died(self, child: Child) -> None:
        self._relay.lose(child.row)
        if child.failures >= MOST_FAILED_STARTS and not self._ready_rows() and not self._draining:
            self._give_up("no replica stays alive")

    def _look_after(self) -> None:
        if self._hangup and self._announced and not self._draining:
            self._hangup = False
            self._relay.ask(ReloadCall(call=0, name=None))
        for row in self._relay.late:
            self._log.error("reload_late", process=self._child(row).name)
            self._child(row).kill()

    def _end(self) -> None:
        self._common.parent.close()

    # --- reload -------------------------------------------------------------------------------------------------------
    def _hear(self, child: Child, said: bytes) -> None:
        try:
            document = read_document(said)
        except ValueError:
            self._log.error("bad_report", process=child.name)
            return
        if isinstance(document, ReloadCall):
            self._relay.ask(document, child.row)
        elif isinstance(document, ReloadEnd):
            self._relay.hear(child.row, document)

    def _say(self, row: int, document: ReloadCall | ReloadEnd) -> None:
        line = self._child(row).line
        if line is not None:
            with suppress(OSError):  # it has just died
                line.send_bytes(write_document(document))

    def _replace(self, row: int) -> None:
        child = self._child(row)
        if child.process is not None:
            self._log.error("replica_differs", process=child.name)
            child.process.terminate()

    def _ready_rows(self) -> list[int]:
        return [child.row for child in self._replicas if child.ready]

    def _child(self, row: int) -> Child:
        return self._replicas[row - 1]
