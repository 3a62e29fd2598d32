"""The models of an HTTP process: those that the engine process names, as soon as it names them."""

import asyncio
from collections.abc import Callable

from model.manifest import Manifest, Preprocessing
from service.engine import Model
from service.errors import NotReady, StartError
from service.models import Behind, Models
from service.processes.calls import ReloadCalls
from service.processes.documents import (
    Catalogue,
    Document,
    Holding,
    Prepare,
    Prepared,
    ReloadEnd,
    Version,
)
from service.processes.remote import RemoteQueue, RemoteVersion
from service.processes.shared import Seat
from service.processes.slab import SlabMemory, slot_bytes_of
from service.reload import Reload, Reloaded


class Follower:
    """Keeps the models of one HTTP process the same as those of the engine process.

    Args:
        seat: of this process.
        life: how often it has been started, from 1.
        engine_up: whether an engine process is ready now.
        prepare: gets decoders ready; blocks, may be called in any thread, raises StartError.
        give_up: called if this process can never serve what an engine process has.
    """

    def __init__(
        self,
        seat: Seat,
        life: int,
        engine_up: Callable[[], bool],
        prepare: Callable[[Preprocessing], object],
        give_up: Callable[[StartError], None],
    ) -> None:
        self._slab = seat.slab
        self._queue = RemoteQueue(seat.http_end, seat.slab, life, engine_up, self._begin, self._hear)
        self._prepare = prepare
        self._give_up = give_up
        self._models: Models | None = None
        self._greeted = asyncio.Event()
        self._early: list[Document] = []  # said before this process serves
        self._catalogue = Catalogue(revision=0, default="", names={})
        self._current: dict[str, RemoteVersion] = {}  # by digest
        self._open: set[RemoteVersion] = set()  # those too that are replaced, until their last request has ended
        self._calls = ReloadCalls(self._queue.say)
        self._preparing: set[asyncio.Task[None]] = set()

    # --- start and end ------------------------------------------------------------------------------------------------
    async def greet(self) -> None:
        """Learn what models there are; waits for an engine process. For an event loop before the one that serves."""
        self._queue.open()
        self._queue.greet()
        await self._greeted.wait()
        self._queue.close()

    async def open(self) -> None:
        """Listen; the models are connected."""
        self._queue.open()
        for said in self._early:
            self._hear(said)
        self._early.clear()

    async def close(self) -> None:
        """Disconnect."""
        self._queue.close()

    def connect(self, models: Models) -> Reload:
        """Change these models from now on; returns what has them loaded again."""
        self._models = models
        return self.reload

    @property
    def default(self) -> str:
        """The name of the model that answers requests which name none."""
        return self._catalogue.default

    def versions(self) -> dict[str, list[Behind]]:
        """What is behind each name, newest first."""
        names = self._catalogue.names.items()
        return {name: [self._behind(self._current[each.digest]) for each in versions] for name, versions in names}

    # --- what the engine process says ---------------------------------------------------------------------------------
    def _begin(self, catalogue: Catalogue) -> None:
        """A new engine process has loaded what the files are now: what is the same as before goes on."""
        self._early.clear()
        if self._models is None:
            self._current, self._open = {}, set()
        numbers = {each.digest: each.number for versions in catalogue.names.values() for each in versions}
        for version in self._open:
            version.number = numbers.get(version.model.digest, 0)
        for preparing in self._preparing:  # nobody asks any more
            preparing.cancel()
        self._calls.fail(NotReady())
        self._follow(catalogue)
        self._greeted.set()

    def _hear(self, said: Document) -> None:
        if self._models is None:
            self._early.append(said)
        elif isinstance(said, Catalogue):
            self._follow(said)
        elif isinstance(said, Prepare):
            task = asyncio.get_running_loop().create_task(self._answer(said))
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)
        elif isinstance(said, ReloadEnd):
            self._calls.hear(said)

    def _follow(self, catalogue: Catalogue) -> None:
        """From here on requests find these versions."""
        self._catalogue = catalogue
        found = [each for versions in catalogue.names.values() for each in versions]
        self._current = {each.digest: self._current.get(each.digest) or self._add(each) for each in found}
        if self._models is None:  # before the start
            return
        try:
            for version in self._current.values():
                self._check_room(version.model.manifest.preprocessing)
            self._models.put_all(catalogue.default, self.versions())
        except StartError as error:
            self._give_up(error)
        self._say_holding()

    def _add(self, version: Version) -> RemoteVersion:
        model = Model(Manifest.from_json(version.manifest), version.digest, version.provider)
        added = RemoteVersion(model, version.number, self._queue)
        self._open.add(added)
        return added

    def _behind(self, version: RemoteVersion) -> Behind:
        async def let_go() -> None:
            self._open.discard(version)
            self._say_holding()

        memory = SlabMemory(self._slab, version.model.manifest.preprocessing.patch_dim)
        return Behind(version.model, version, memory, let_go)

    def _say_holding(self) -> None:
        numbers = frozenset(version.number for version in self._open)
        self._queue.say(Holding(revision=self._catalogue.revision, numbers=numbers))

    # --- reload -------------------------------------------------------------------------------------------------------
    async def _answer(self, asked: Prepare) -> None:
        reason = None
        try:
            spec = Preprocessing.from_dict(asked.preprocessing)
            self._check_room(spec)
            await asyncio.to_thread(self._prepare, spec)
        except StartError as error:
            reason = str(error)
        self._queue.say(Prepared(question=asked.question, reason=reason))

    def _check_room(self, spec: Preprocessing) -> None:
        """Raises: StartError: if its images are larger than those that the slots were cut for."""
        needed, room = slot_bytes_of(spec), self._slab.slot_bytes
        if needed > room:
            raise StartError(
                f"an image of the model needs {needed} bytes of patch memory, but at the start it was cut into pieces "
                f"of {room} for the models of then: start the service again"
            )

    async def reload(self, name: str | None) -> list[Reloaded]:
        """Have this name, or everything, loaded again.

        Raises:
            NotFound: if there is no such model.
            Internal: if the reload failed in a way of its own.
            NotReady: if there is no engine process, or it died meanwhile: its successor has loaded what the files are.
        """
        if not self._queue.engine_up():
            raise NotReady
        return await self._calls(name)
