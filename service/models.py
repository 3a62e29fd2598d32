"""The models that requests may choose from, and how one takes the place of another.

A request belongs to the model that it found when it began, to its end. A model that has been replaced gives its memory
back when the last of its requests has ended. All of this is in the event loop's thread, so a swap is one assignment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from service.brownout import BrownOut
from service.engine import Model
from service.errors import NotFound
from service.pipeline import PatchMemory, Pipeline, Queue
from service.replies import ModelName, name_of


@dataclass(frozen=True, slots=True, eq=False)
class Behind:
    """What stands behind one model: in this process, or in the engine's.

    Attributes:
        model: what it is.
        queue: takes patch sequences, answers with the best classes.
        memory: where patches are written for it.
        close: called after its last request.
        watch: looks after it as long as it is served, every so many seconds; cancelled before `close`.
        has_logits: the queue answers with the logits of all classes, not only with the best classes.
    """

    model: Model
    queue: Queue
    memory: PatchMemory
    close: Callable[[], Awaitable[None]]
    watch: Callable[[float], Coroutine[Any, Any, None]] | None = None
    has_logits: bool = False


class Served:
    """One model and the requests that are with it: `with models.choose(None) as served`.

    Args:
        behind: the model.
        pipeline: from the upload to the labels.
        brown_out: how many patches an image has under load.
        unused: told when the model has been replaced and its last request has ended.
    """

    __slots__ = (
        "_replaced",
        "_requests",
        "_unused",
        "_watching",
        "behind",
        "brown_out",
        "manifest",
        "model",
        "name",
        "pipeline",
    )

    def __init__(
        self, behind: Behind, pipeline: Pipeline, brown_out: BrownOut, unused: Callable[["Served"], None]
    ) -> None:
        self.behind = behind
        self.model = behind.model
        self.manifest = behind.model.manifest
        self.name: ModelName = name_of(behind.model)  # of every reply
        self.pipeline = pipeline
        self.brown_out = brown_out
        self._watching: asyncio.Task[None] | None = None
        self._unused = unused
        self._requests = 0
        self._replaced = False

    def __enter__(self) -> "Served":
        self._requests += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests -= 1
        if self._replaced and not self._requests:
            self._unused(self)

    def watch(self, interval_s: float) -> None:
        """Have it looked after every so many seconds; 0: not at all. To be called in the event loop."""
        if interval_s and self.behind.watch is not None and self._watching is None:
            self._watching = asyncio.create_task(self.behind.watch(interval_s))

    async def close(self) -> None:
        """After its last request."""
        if self._watching is not None:
            self._watching.cancel()
        await self.behind.close()

    def replace(self) -> None:
        """No request will choose it any more."""
        if not self._replaced:
            self._replaced = True
            if not self._requests:
                self._unused(self)


class Models:
    """The map from names to models.

    Args:
        default: the name of the model that answers requests which name none.
        open_pipeline: puts a pipeline, and a brown-out, in front of a model.
        watch_interval_s: between two looks at a model, seconds; 0: none.
    """

    def __init__(
        self, default: str, open_pipeline: Callable[[Behind], tuple[Pipeline, BrownOut]], watch_interval_s: float
    ) -> None:
        self._default_name = default
        self._watch_interval_s = watch_interval_s
        self._opened = False
        self._open_pipeline = open_pipeline
        self._versions: dict[str, list[Served]] = {}  # newest first
        self._by_name: dict[str, Served] = {}  # NAME is the newest, NAME@VERSION each
        self._default: Served | None = None
        self._closing: set[asyncio.Future[None]] = set()

    def choose(self, name: str | None) -> Served:
        """The model of this name, or the default one. The name is a client's: it is looked up and nothing else.

        Raises:
            NotFound: if there is none.
        """
        served = self._default if name is None else self._by_name.get(name)
        if served is None:
            raise NotFound
        return served

    def open(self) -> None:
        """The event loop turns: from now on models are looked after."""
        self._opened = True
        for served in self.all():
            served.watch(self._watch_interval_s)

    def observe_wait(self, wait_s: float, now_s: float) -> None:
        """Tell every brown-out how long the engine will need, see `BrownOut.observe`."""
        for served in self.all():
            served.brown_out.observe(wait_s, now_s)

    def brown_out_level(self) -> int:
        """The highest of all models."""
        return max(served.brown_out.level for served in self.all())

    def all(self) -> list[Served]:
        """Every version of every name; of a name the newest first."""
        return [served for versions in self._versions.values() for served in versions]

    def is_newest(self, served: Served) -> bool:
        """Whether its name alone means this version."""
        return self._by_name[served.manifest.name] is served

    def put(self, name: str, versions: Sequence[Behind]) -> None:
        """From now on these are the versions of a name, newest first; what is there already stays as it is.

        To be called in a turn of the event loop, unless nothing is replaced.
        """
        before = self._versions.get(name, [])
        known = {served.model.digest: served for served in before}
        after = [
            known.pop(behind.model.digest)
            if behind.model.digest in known
            else Served(behind, *self._open_pipeline(behind), self._close)
            for behind in versions
        ]
        self._versions[name] = after
        if not after:
            del self._versions[name]
        self._by_name = {
            called: served
            for versions in self._versions.values()
            for served in reversed(versions)  # so that the newest is the one that the name alone means
            for called in (served.manifest.name, f"{served.manifest.name}@{served.manifest.version}")
        }
        self._default = self._by_name.get(self._default_name)
        for served in known.values():
            served.replace()
        if self._opened:
            for served in after:
                served.watch(self._watch_interval_s)

    def put_all(self, default: str, versions: Mapping[str, Sequence[Behind]]) -> None:
        """From now on there is nothing but these versions, and `default` answers requests which name none.

        As `put`, to be called in a turn of the event loop.
        """
        self._default_name = default
        for name in [*versions, *(self._versions.keys() - versions.keys())]:
            self.put(name, versions.get(name, ()))

    def facts(self) -> dict[str, Any]:
        """What is served, for the log."""
        return {"default": self._default_name, "models": [served.name.model_dump() for served in self.all()]}

    async def close(self) -> None:
        """After the last request: close every model, and wait for those that are closing."""
        for served in self.all():
            await served.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _close(self, served: Served) -> None:
        closing = asyncio.ensure_future(served.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
