"""Loading models again while they are served: for `POST /models/{name}/reload` and for SIGHUP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Generic

from structlog.typing import FilteringBoundLogger

from service.errors import NotFound
from service.library import Change, Library, OpenedT
from service.metrics import Metrics
from service.replies import ModelName, name_of

_BEST_FIRST = ("unchanged", "added", "reloaded", "refused")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did to one name.

    Attributes:
        name: of the model; empty for a file of no model.
        outcome: `added`, `reloaded`, `unchanged` or `refused`.
        old: the newest version before; None if there was none.
        new: the newest version from now on.
    """

    name: str
    outcome: str
    old: ModelName | None
    new: ModelName | None


Reload = Callable[[str | None], Awaitable[list[Reloaded]]]  # for one name, or for all; raises NotFound


class Reloading(Generic[OpenedT]):
    """One reload at a time, in a thread.

    Args:
        library: the files.
        switch: awaited with every change that is one; requests find it afterwards.
        metrics: counts outcomes.
        log: is told why.
    """

    def __init__(
        self,
        library: Library[OpenedT],
        switch: Callable[[Change[OpenedT]], Awaitable[None]],
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._library = library
        self._switch = switch
        self._metrics = metrics
        self._log = log
        self._lock = asyncio.Lock()
        # Its own, for the end of the process waits for the threads that the loop gives out.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reload")
        self._under_way: set[asyncio.Task[list[Reloaded]]] = set()

    async def __call__(self, name: str | None) -> list[Reloaded]:
        """Load again what has this name, or everything. Goes on to its end even if nobody waits any more.

        Raises:
            NotFound: if there is no such model.
        """
        return await asyncio.shield(self._start(name))

    def soon(self) -> None:
        """Begin to load everything again; for the handler of a signal."""
        self._start(None).add_done_callback(self._tell_failure)

    def _tell_failure(self, task: "asyncio.Task[list[Reloaded]]") -> None:
        """A signal has nobody who waits for its outcome."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("model_reload_failed", exc_info=error)

    def _start(self, name: str | None) -> "asyncio.Task[list[Reloaded]]":
        task = asyncio.get_running_loop().create_task(self._reload(name))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _reload(self, name: str | None) -> list[Reloaded]:
        async with self._lock:
            done = []
            async for change in self._changes(name):
                if change.outcome in {"added", "reloaded"}:
                    await self._switch(change)
                self._record(change)
                done.append(Reloaded(change.name, change.outcome, newest(change.before), newest(change.after)))
            return done

    async def _changes(self, name: str | None) -> AsyncIterator[Change[OpenedT]]:
        loop, changes = asyncio.get_running_loop(), self._library.reload(name)
        try:
            while (change := await loop.run_in_executor(self._thread, next, changes, None)) is not None:
                yield change
        except KeyError:
            raise NotFound from None

    def _record(self, change: Change[OpenedT]) -> None:
        self._metrics.reloads.labels(change.outcome).inc()
        old, new = newest(change.before), newest(change.after)
        facts = {"model": change.name, "outcome": change.outcome}
        facts |= {f"old_{key}": getattr(old, key) for key in ("version", "digest") if old is not None}
        facts |= {f"new_{key}": getattr(new, key) for key in ("version", "digest") if new is not None}
        if change.outcome == "refused":
            self._log.error("model_reload", **facts, reason=change.reason)
        else:
            self._log.info("model_reload", **facts)


def newest(versions: Sequence[OpenedT]) -> ModelName | None:
    """How the newest of the versions of a name is called."""
    return name_of(versions[0].model) if versions else None


def worst_of(answers: Sequence[Sequence[Reloaded]]) -> list[Reloaded]:
    """What a reload did to each name in several processes that were told: the answer of the one that did worst."""
    told = sorted(chain(*answers), key=lambda each: _BEST_FIRST.index(each.outcome))
    return list({each.name: each for each in told}.values())
