"""The reload of one replica, done in all: see `service.processes.relay`."""

import asyncio
from multiprocessing.connection import Connection

from structlog.typing import FilteringBoundLogger

from service.processes.calls import ReloadCalls, carry_out
from service.processes.documents import ReloadCall, ReloadEnd, read_document, write_document
from service.reload import Reload, Reloaded

_MOST_BYTES = 64 << 20


class SharedReload:
    """In a replica.

    Args:
        line: to the parent.
        log: is told of reloads that fail in a way of their own.
    """

    def __init__(self, line: Connection, log: FilteringBoundLogger) -> None:
        self._line = line
        self._log = log
        self._calls = ReloadCalls(self._say)
        self._reload: Reload
        self._reloading: set[asyncio.Task[None]] = set()

    def share(self, reload: Reload) -> Reload:
        """`reload` is that of this process; returns what has it done in all replicas."""
        self._reload = reload
        return self._reload_all

    def open(self) -> None:
        """Listen on the running loop."""
        asyncio.get_running_loop().add_reader(self._line, self._read)

    async def _reload_all(self, name: str | None) -> list[Reloaded]:
        return await self._calls(name)

    def _read(self) -> None:
        try:
            said = read_document(self._line.recv_bytes(_MOST_BYTES))
        except (EOFError, OSError):  # the parent is gone
            asyncio.get_running_loop().remove_reader(self._line)
            return
        if isinstance(said, ReloadCall):
            task = asyncio.get_running_loop().create_task(self._carry_out(said))
            self._reloading.add(task)
            task.add_done_callback(self._reloading.discard)
        elif isinstance(said, ReloadEnd):
            self._calls.hear(said)

    async def _carry_out(self, asked: ReloadCall) -> None:
        self._say(await carry_out(asked, self._reload, self._log))

    def _say(self, document: ReloadCall | ReloadEnd) -> None:
        self._line.send_bytes(write_document(document))
