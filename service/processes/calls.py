"""Reloads that one process asks another for."""

import asyncio
import itertools
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from service.errors import Internal, NotFound, RequestError
from service.processes.documents import ReloadCall, ReloadEnd
from service.reload import Reload, Reloaded


class ReloadCalls:
    """Those that this process has asked for and that have not ended. Args: says it to the other process."""

    def __init__(self, say: Callable[[ReloadCall], None]) -> None:
        self._say = say
        self._open: dict[int, asyncio.Future[ReloadEnd]] = {}
        self._numbers = itertools.count(1)

    async def __call__(self, name: str | None) -> list[Reloaded]:
        """Have this name, or everything, loaded again.

        Raises:
            NotFound: if there is no such model.
            Internal: if the reload failed in a way of its own.
            RequestError: as given to `fail`.
        """
        number = next(self._numbers)
        call: asyncio.Future[ReloadEnd] = asyncio.get_running_loop().create_future()
        self._open[number] = call
        self._say(ReloadCall(call=number, name=name))
        try:
            ended = await call
        finally:
            del self._open[number]
        if ended.reloaded is None:
            raise Internal if ended.known else NotFound
        return ended.reloaded

    def hear(self, end: ReloadEnd) -> None:
        """One has ended."""
        call = self._open.get(end.call)
        if call is not None and not call.done():
            call.set_result(end)

    def fail(self, error: RequestError) -> None:
        """None of them will end."""
        for call in self._open.values():
            if not call.done():
                call.set_exception(error)


async def carry_out(asked: ReloadCall, reload: Reload, log: FilteringBoundLogger) -> ReloadEnd:
    """Do what another process has asked for; whatever comes of it, it is told."""
    try:
        return ReloadEnd(call=asked.call, reloaded=await reload(asked.name))
    except NotFound:
        return ReloadEnd(call=asked.call, known=False)
    except Exception:  # whoever asked is waiting
        log.exception("reload_failed")
        return ReloadEnd(call=asked.call)
