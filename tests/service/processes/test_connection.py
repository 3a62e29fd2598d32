"""Both ends of a connection on one event loop, with a queue that answers when it is told to."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from ranked import ranking_of
from tiny_artifact import MANIFEST

from model.preprocess import PatchSequence
from service.errors import DeadlineExceeded, Draining, Internal, NoPatchMemoryError, NotReady, RequestError
from service.processes.desk import Desk
from service.processes.messages import Kind, Lives, Submission, pack_header, pack_record
from service.processes.remote import RemoteQueue
from service.processes.slab import PatchSlab
from service.scheduler import Inference

pytestmark = pytest.mark.anyio
LATER = 1e9


@dataclass
class Scheduler:
    """Keeps what is submitted."""

    taken: list[tuple[np.ndarray, tuple[int, int], float]] = field(default_factory=list)
    futures: list[asyncio.Future[Inference]] = field(default_factory=list)

    def submit(self, sequence: PatchSequence, deadline_s: float) -> asyncio.Future[Inference]:
        self.taken.append((sequence.patches.copy(), sequence.grid, deadline_s))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def answer(self, index: int, best: int) -> None:
        ranking = ranking_of(best, classes=len(MANIFEST.labels))
        self.futures[index].set_result(Inference(ranking, 0.25, 0.5, 2))


class Pair:
    """An HTTP process and an engine process, as far as their connection goes."""

    def __init__(self, slots: int) -> None:
        self.ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in self.ends:
            end.setblocking(False)
        self.slab = PatchSlab(slots * 8192)
        self.slab.cut(MANIFEST)
        self.engine_up = True
        self.refused = 0
        self.scheduler = Scheduler()

    def desk(self, life: int = 1, http_life: int = 0) -> Desk:
        def refuse() -> None:
            self.refused += 1

        self.scheduler = Scheduler()
        desk = Desk(self.ends[0], self.slab, self.scheduler, life, refuse)
        desk.open(http_life)
        return desk

    def queue(self, life: int = 1) -> RemoteQueue:
        return RemoteQueue(self.ends[1], self.slab, life, lambda: self.engine_up)

    def image(self, value: int, grid: tuple[int, int] = (2, 3)) -> PatchSequence:
        place = self.slab.take(grid[0] * grid[1])
        place[:] = value
        return PatchSequence(place, grid, 8, 12, "PNG")


MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair() -> Iterator[MakePair]:
    made: list[Pair] = []

    def make(slots: int = 4) -> Pair:
        made.append(Pair(slots))
        return made[-1]

    yield make
    for end in (end for pair in made for end in pair.ends):
        end.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what it waits for is not ours to signal
            await asyncio.sleep(0.001)


async def connected(pair: Pair) -> tuple[Desk, RemoteQueue]:
    desk, queue = pair.desk(), pair.queue()
    await queue.open()
    return desk, queue


async def test_an_image_goes_over_and_its_answer_comes_back(make_pair: MakePair) -> None:
    pair = make_pair()
    _, queue = await connected(pair)
    future = queue.submit(pair.image(9), 77.0)
    await until(lambda: len(pair.scheduler.taken) == 1)
    patches, grid, deadline_s = pair.scheduler.taken[0]
    assert ((patches == 9).all(), patches.shape, grid, deadline_s) == (True, (6, 48), (2, 3), 77.0)
    pair.scheduler.answer(0, 5)
    answer = await future
    assert answer.ranking.indices.tolist() == [5, 6, 7]
    assert answer.ranking.scores.tolist() == pytest.approx([0.5, 0.25, 0.125])
    assert (answer.queue_s, answer.inference_s, answer.batch_images) == (0.25, 0.5, 2)


async def test_answers_find_their_images_in_any_order(make_pair: MakePair) -> None:
    pair = make_pair()
    _, queue = await connected(pair)
    futures = [queue.submit(pair.image(value), LATER) for value in range(4)]
    await until(lambda: len(pair.scheduler.taken) == 4)
    for index in (2, 0, 3, 1):
        pair.scheduler.answer(index, index)
    assert [int((await future).ranking.indices[0]) for future in futures] == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [DeadlineExceeded, Draining, Internal])
async def test_errors_come_back_as_what_they_are(make_pair: MakePair, error: type[RequestError]) -> None:
    pair = make_pair()
    _, queue = await connected(pair)
    future = queue.submit(pair.image(1), LATER)
    await until(lambda: bool(pair.scheduler.futures))
    pair.scheduler.futures[0].set_exception(error())
    with pytest.raises(error):
        await future


async def test_a_slot_is_taken_until_the_engine_has_let_go(make_pair: MakePair) -> None:
    pair = make_pair(slots=1)
    _, queue = await connected(pair)
    future = queue.submit(pair.image(1), LATER)
    await until(lambda: bool(pair.scheduler.futures))
    future.cancel()
    with pytest.raises(NoPatchMemoryError):
        pair.slab.take(1)
    await until(pair.scheduler.futures[0].cancelled)
    await until(lambda: room(pair.slab))


def room(slab: PatchSlab) -> bool:
    try:
        slab.take(1)
    except NoPatchMemoryError:
        return False
    return True


async def test_without_an_engine_nothing_is_taken(make_pair: MakePair) -> None:
    pair = make_pair()
    _, queue = await connected(pair)
    pair.engine_up = False
    with pytest.raises(NotReady):
        await queue.submit(pair.image(1), LATER)


async def test_a_new_engine_is_given_what_waited(make_pair: MakePair) -> None:
    pair = make_pair()
    desk, queue = await connected(pair)
    futures = [queue.submit(pair.image(value), LATER) for value in (4, 5)]
    await until(lambda: len(pair.scheduler.taken) == 2)
    desk.close()
    futures[0].cancel()
    pair.desk(life=2, http_life=1)
    await until(lambda: len(pair.scheduler.taken) == 1)
    assert (pair.scheduler.taken[0][0] == 5).all()
    pair.scheduler.answer(0, 8)
    assert (await futures[1]).ranking.indices[0] == 8


async def test_what_two_engines_died_with_is_given_up(make_pair: MakePair) -> None:
    pair = make_pair()
    desk, queue = await connected(pair)
    future = queue.submit(pair.image(1), LATER)
    await until(lambda: bool(pair.scheduler.taken))
    desk.close()
    second = pair.desk(life=2, http_life=1)
    await until(lambda: bool(pair.scheduler.taken))
    second.close()
    pair.desk(life=3, http_life=1)
    with pytest.raises(Internal):
        await future
    assert pair.scheduler.taken == []


async def test_an_answer_of_a_dead_engine_is_ignored(make_pair: MakePair) -> None:
    pair = make_pair()
    desk, queue = await connected(pair)
    future = queue.submit(pair.image(1), LATER)
    await until(lambda: bool(pair.scheduler.taken))
    old = pair.scheduler
    desk.close()
    pair.desk(life=2, http_life=1)
    await until(lambda: bool(pair.scheduler.taken))
    old.answer(0, 666)
    pair.scheduler.answer(0, 8)
    assert (await future).ranking.indices[0] == 8


async def test_a_new_http_process_gets_none_of_its_predecessors_answers(make_pair: MakePair) -> None:
    pair = make_pair()
    _, dead = await connected(pair)
    dead.submit(pair.image(1), LATER)
    await until(lambda: len(pair.scheduler.futures) == 1)
    dead.close()
    pair.slab.cut(MANIFEST)  # as a new process does
    queue = pair.queue(life=2)
    await queue.open()
    assert pair.scheduler.futures[0].cancelled()
    future = queue.submit(pair.image(3), LATER)
    await until(lambda: len(pair.scheduler.futures) == 2)
    pair.scheduler.answer(1, 2)
    assert (await future).ranking.indices[0] == 2


async def test_nonsense_from_an_http_process_is_refused(make_pair: MakePair) -> None:
    pair = make_pair()
    _, queue = await connected(pair)
    for slot, rows in ((999, 1), (0, 65_000), (0, 0)):
        record = pack_record(Kind.SUBMISSION, Submission(1, slot, rows, 1, LATER))
        pair.ends[1].send(pack_header(Kind.SUBMISSION, Lives(1, 1)) + record)
    await until(lambda: pair.refused == 3)
    assert pair.scheduler.taken == []
    future = queue.submit(pair.image(1), LATER)
    await until(lambda: bool(pair.scheduler.futures))
    pair.scheduler.answer(0, 1)
    await future


async def test_a_side_that_does_not_read_loses_nothing(make_pair: MakePair) -> None:
    pair = make_pair(slots=3000)
    desk, queue = await connected(pair)
    desk.close()
    futures = []
    for value in range(2000):
        futures.append(queue.submit(pair.image(value % 256), LATER))
        await asyncio.sleep(0)  # one datagram each: more than the socket holds
    desk.open(0)
    await until(lambda: len(pair.scheduler.taken) == 2000)
    for index in range(2000):
        pair.scheduler.answer(index, index)
    assert [int((await future).ranking.indices[0]) for future in futures] == list(range(2000))


async def test_the_desk_notices_that_everybody_has_left(make_pair: MakePair) -> None:
    pair = make_pair()
    desk, queue = await connected(pair)
    queue.close()
    assert not desk.left.is_set()
    pair.ends[1].close()
    async with asyncio.timeout(5):
        await desk.left.wait()
