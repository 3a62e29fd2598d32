"""An HTTP process and an engine process on one event loop, as far as their connection goes.

Models answer when they are told to.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from ranked import ranking_of
from structlog.testing import CapturingLogger
from tiny_artifact import MANIFEST, renamed

from model.manifest import Manifest, Preprocessing
from model.preprocess import PatchSequence
from service.engine import Model
from service.errors import StartError
from service.extras import NOTHING, Extras, Found
from service.library import Change
from service.loaded import Loaded
from service.models import Behind, Models
from service.processes.desk import Desk
from service.processes.follower import Follower
from service.processes.office import Office
from service.processes.shared import Seat
from service.processes.shelf import Shelf
from service.processes.slab import PatchSlab
from service.reload import Reloaded
from service.scheduler import Inference
from service.tracing.references import SpanReference

NAME = MANIFEST.name


@dataclass
class Scheduler:
    """Keeps what is submitted."""

    taken: list[tuple[np.ndarray, tuple[int, int], float]] = field(default_factory=list)
    futures: list[asyncio.Future[Inference]] = field(default_factory=list)
    wanted: list[Extras] = field(default_factory=list)
    origins: list[SpanReference | None] = field(default_factory=list)
    closed: bool = False

    def submit(
        self,
        sequence: PatchSequence,
        deadline_s: float,
        extras: Extras = Extras.NONE,
        origin: SpanReference | None = None,
    ) -> asyncio.Future[Inference]:
        self.wanted.append(extras)
        self.origins.append(origin)
        self.taken.append((sequence.patches.copy(), sequence.grid, deadline_s))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def answer(self, index: int, best: int, found: Found = NOTHING) -> None:
        ranking = ranking_of(best, classes=3)
        self.futures[index].set_result(Inference(ranking, 0.25, 0.5, 2, found))

    async def close(self) -> None:
        self.closed = True


@dataclass(eq=False)
class FakeLoaded:
    """A model whose file is called by its digest."""

    digest: str
    manifest: Manifest = MANIFEST
    queue: Scheduler = field(default_factory=Scheduler)
    closed: bool = False

    @property
    def model(self) -> Model:
        return Model(self.manifest, self.digest, "cpu")

    async def close(self) -> None:
        self.closed = True


def loaded(digest: str, **fields: Any) -> FakeLoaded:
    return FakeLoaded(digest, renamed(**fields))


def shelf_with(life: int, *versions: FakeLoaded) -> Shelf:
    """Versions of one name, newest first."""
    shelf = Shelf(life, versions[0].manifest.name)
    shelf.put(versions[0].manifest.name, of_shelf(versions))
    return shelf


def of_shelf(versions: Sequence[FakeLoaded]) -> tuple[Loaded, ...]:
    return tuple(cast("Loaded", each) for each in versions)


def change(*versions: FakeLoaded) -> Change[Loaded]:
    """What a reload did to one name."""
    return Change(versions[0].manifest.name, "reloaded", (), of_shelf(versions))


class Engine:
    """One life of the engine process, with the desks of some seats."""

    def __init__(self, seats: Sequence[Seat], life: int, http_lives: Sequence[int], *versions: FakeLoaded) -> None:
        self.asked: list[str | None] = []
        self.outcome: list[Reloaded] | Exception = []
        self.log = CapturingLogger()
        self.shelf = shelf_with(life, *versions)
        self.office = Office(self.shelf, cast("Any", self.log))
        self.desks = [
            Desk(seat.engine_end, seat.slab, self.shelf, self.office, self._reload, life, cast("Any", self.log))
            for seat in seats
        ]
        for desk, http_life in zip(self.desks, http_lives, strict=True):
            desk.open(http_life)

    @property
    def logged(self) -> list[str]:
        """The events, in order."""
        return [call.args[0] for call in self.log.calls]

    def close(self) -> None:
        for desk in self.desks:
            desk.close()

    async def _reload(self, name: str | None) -> list[Reloaded]:
        self.asked.append(name)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Http:
    """One life of an HTTP process."""

    def __init__(self, seat: Seat, life: int, engine_up: Callable[[], bool]) -> None:
        self.gave_up: list[StartError] = []
        self.prepared: list[Preprocessing] = []
        self.unable = ""
        self.seat = seat
        self.follower = Follower(seat, life, engine_up, self._prepare, self.gave_up.append)
        self.models: Models

    async def start(self) -> "Http":
        """As the process does it: greet, cut the memory, serve."""
        async with asyncio.timeout(5):
            await self.follower.greet()
        versions = self.follower.versions()
        self.seat.slab.cut(each.model.manifest.preprocessing for behind in versions.values() for each in behind)
        self.models = Models(self.follower.default, lambda _: cast("Any", (None, None)), 0)
        for name, behind in versions.items():
            self.models.put(name, behind)
        self.follower.connect(self.models)
        await self.follower.open()
        return self

    @property
    def digests(self) -> dict[str, str]:
        """Of the versions that requests may choose, by NAME@VERSION."""
        return {f"{each.name.name}@{each.name.version}": each.model.digest for each in self.models.all()}

    def behind(self, name: str | None = None) -> Behind:
        return self.models.choose(name).behind

    def image(self, value: int, grid: tuple[int, int] = (2, 3)) -> PatchSequence:
        place = self.behind().memory.take(grid[0] * grid[1])
        place[:] = value
        return PatchSequence(place, grid, 8, 12, "PNG")

    def submit(
        self,
        value: int,
        deadline_s: float = 1e9,
        extras: Extras = Extras.NONE,
        origin: SpanReference | None = None,
    ) -> asyncio.Future[Inference]:
        return self.behind().queue.submit(self.image(value), deadline_s, extras, origin)

    def _prepare(self, spec: Preprocessing) -> None:
        self.prepared.append(spec)
        if self.unable:
            raise StartError(self.unable)


class Service:
    """Seats for HTTP processes; processes come and go."""

    def __init__(self, http_processes: int = 1, slots: int = 4) -> None:
        self.engine_up = True
        self.seats = []
        for row in range(1, 1 + http_processes):
            ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in ends:
                end.setblocking(False)
            self.seats.append(Seat(row, *ends, PatchSlab(slots * 24_576), ends[0]))

    def engine(self, *versions: FakeLoaded, life: int = 1, http_lives: Sequence[int] = ()) -> Engine:
        """Start an engine process; by default nobody is there yet."""
        lives = http_lives or [0] * len(self.seats)
        return Engine(self.seats, life, lives, *versions)

    async def http(self, seat: int = 0, life: int = 1) -> Http:
        """Start an HTTP process."""
        return await Http(self.seats[seat], life, lambda: self.engine_up).start()

    async def started(self, *versions: FakeLoaded) -> tuple[Engine, list[Http]]:
        """All of it; by default with one model."""
        engine = self.engine(*(versions or [loaded("sha256:1")]))
        return engine, [await self.http(seat) for seat in range(len(self.seats))]

    def close(self) -> None:
        for seat in self.seats:
            seat.engine_end.close()
            seat.http_end.close()


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until it is true."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what it waits for is not ours to signal
            await asyncio.sleep(0.001)
