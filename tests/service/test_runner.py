import asyncio
import itertools
import os
import sys
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from model.preprocess import PatchSequence
from service.buckets import Buckets
from service.buffers import BatchBuffer, BatchMemory
from service.errors import EngineError, StartError
from service.runner import BatchRunner, EngineRoom, Run, SharedTime

pytestmark = pytest.mark.anyio


def test_the_shares_of_batches_that_run_together_sum_up_to_the_time_that_they_took() -> None:
    now_s = 10.0
    time_of_engine = SharedTime(lambda: now_s)
    first = time_of_engine.enter()
    now_s = 12.0
    second = time_of_engine.enter()
    now_s = 15.0
    first_s = time_of_engine.leave().shared_s - first.shared_s
    now_s = 16.0
    second_s = time_of_engine.leave().shared_s - second.shared_s
    now_s = 50.0
    third = time_of_engine.enter()
    now_s = 51.0
    third_s = time_of_engine.leave().shared_s - third.shared_s
    assert (first_s, second_s, third_s) == (2 + 3 / 2, 3 / 2 + 1, 1)


def one_hot(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits whose largest is at the first value of each image."""
    return np.eye(256, dtype=np.float32)[patches[:, 0, 0]]


def best(run: Run) -> list[int | None]:
    """The best class of each image."""
    return [None if each is None else int(each.indices[0]) for each in run.rankings]


class CountingEngine:
    def __init__(self) -> None:
        self.inside = 0
        self.most_inside = 0
        self.may_end = threading.Event()

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        assert self.may_end.wait(5)
        self.inside -= 1
        if not patches.any():
            raise EngineError("blank")
        return one_hot(patches)


def sequence(fill: int) -> PatchSequence:
    return PatchSequence(np.full((1, 12), fill, np.uint8), (1, 1), 2, 2, "PNG")


async def test_batches_run_one_at_a_time_in_the_engine() -> None:
    engine = CountingEngine()
    runner = BatchRunner(engine, time.monotonic)
    both = [asyncio.ensure_future(runner.run([sequence(fill)])) for fill in (3, 4)]
    await asyncio.sleep(0.05)
    engine.may_end.set()
    runs = await asyncio.gather(*both)
    runner.close()
    assert engine.most_inside == 1
    assert [best(run) for run in runs] == [[3], [4]]
    assert all(run.seconds > 0 for run in runs)


class MeetingEngine:
    """A run ends when so many are in the engine at once."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties)
        self.alone: list[bool] = []

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        self.alone.append(alone)
        self.barrier.wait(5)
        return one_hot(patches)


async def test_as_many_batches_as_lanes_are_in_the_engine_each_in_memory_of_its_own() -> None:
    engine = MeetingEngine(parties=3)
    memory = BatchMemory([BatchBuffer() for _ in range(3)])
    ticks = itertools.count()
    runner = BatchRunner(engine, lambda: float(next(ticks)), memory, lanes=3)
    runs = await asyncio.gather(*(runner.run([sequence(fill)], alone=False) for fill in (3, 4, 5)))
    runner.close()
    assert [best(run) for run in runs] == [[3], [4], [5]]
    assert engine.alone == [False] * 3
    assert sum(run.share_s for run in runs) == pytest.approx(5), "six readings of a clock that ticks at each"
    assert all(run.share_s < run.seconds for run in runs)


async def test_a_batch_that_has_the_engine_for_itself_has_all_of_its_time() -> None:
    engine = CountingEngine()
    engine.may_end.set()
    ticks = itertools.count()
    runner = BatchRunner(engine, lambda: float(next(ticks)))
    with pytest.raises(EngineError):
        await runner.run([sequence(0)])
    run = await runner.run([sequence(1)])
    runner.close()
    assert run.share_s == run.seconds == 1


async def test_a_failure_frees_the_engine() -> None:
    engine = CountingEngine()
    engine.may_end.set()
    runner = BatchRunner(engine, time.monotonic)
    with pytest.raises(EngineError):
        await runner.run([sequence(0)])
    assert best(await runner.run([sequence(5)])) == [5]
    runner.close()


class WatchingEngine:
    """Remembers the shape, the memory and the grid of each batch; its answer is the first value of each image."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.addresses: list[int] = []
        self.grids: list[list[list[int]]] = []
        self.alone: list[bool] = []

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        self.shapes.append(patches.shape)
        self.addresses.append(patches.ctypes.data)
        self.grids.append(grid.tolist())
        self.alone.append(alone)
        if patches[0, 0, 0] == 13:
            raise EngineError("bad luck")
        return one_hot(patches)


def strip(fill: int, length: int) -> PatchSequence:
    return PatchSequence(np.full((length, 12), fill, np.uint8), (1, length), 2, 2, "PNG")


async def test_a_batch_runs_in_the_shape_of_its_bucket_and_answers_for_its_images_alone() -> None:
    engine = WatchingEngine()
    buckets = Buckets((8, 16), max_patches=64, max_images=8)
    runner = BatchRunner(engine, time.monotonic, BatchMemory(buckets=buckets))
    run = await runner.run([strip(1, 3), strip(2, 7), strip(3, 1)])
    runner.close()
    assert engine.shapes == [(4, 8, 12)]
    assert engine.grids == [[[1, 3], [1, 7], [1, 1], [1, 1]]]
    assert best(run) == [1, 2, 3]
    assert run.padded_patches == 32


async def test_without_buckets_a_batch_has_the_shape_of_its_longest_image() -> None:
    engine = WatchingEngine()
    runner = BatchRunner(engine, time.monotonic)
    run = await runner.run([strip(1, 3), strip(2, 7)])
    runner.close()
    assert engine.shapes == [(2, 7, 12)]
    assert run.padded_patches == 14


async def test_the_same_two_buffers_hold_all_batches_and_none_is_lost_when_one_fails() -> None:
    engine = WatchingEngine()
    runner = BatchRunner(engine, time.monotonic)
    await runner.run([strip(9, 1000)])
    await runner.run([strip(9, 1000)])
    for fill in (1, 13, 2, 13, 3, 4):
        if fill == 13:
            with pytest.raises(EngineError):
                await runner.run([strip(fill, 5)])
        else:
            assert best(await runner.run([strip(fill, 5)])) == [fill]
    runner.close()
    assert len(set(engine.addresses)) == 2


async def test_a_batch_that_is_larger_than_the_last_gets_more_memory() -> None:
    runner = BatchRunner(WatchingEngine(), time.monotonic)
    for length in (1, 50, 3, 500):
        run = await runner.run([strip(length % 251, length)] * 3)
        assert best(run) == [length % 251] * 3
    runner.close()


def test_every_shape_warms_up_in_every_buffer() -> None:
    engine = WatchingEngine()
    runner = BatchRunner(engine, time.monotonic, BatchMemory(warm_up=[(2, 8), (1, 4)], patch_dim=12))
    runner.warm_up()
    runner.close()
    assert engine.shapes == [(2, 8, 12), (1, 4, 12)] * 2
    assert engine.grids == [[[1, 1], [1, 1]], [[1, 1]]] * 2


def test_with_several_lanes_every_shape_warms_up_in_both_widths() -> None:
    engine = WatchingEngine()
    memory = BatchMemory([BatchBuffer() for _ in range(8)], warm_up=[(2, 8), (1, 4)], patch_dim=12)
    runner = BatchRunner(engine, time.monotonic, memory, lanes=8)
    runner.warm_up()
    runner.close()
    assert engine.shapes == [(2, 8, 12), (1, 4, 12)] * 2
    assert engine.alone == [True, True, False, False]


class BrokenBuffer(BatchBuffer):
    def ready(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> None:
        raise EngineError("the GPU fell off the bus")


async def test_a_buffer_that_cannot_be_made_ready_fails_its_batch_or_the_start() -> None:
    memory = BatchMemory([BrokenBuffer()], Buckets(), [(1, 4)], 12)
    runner = BatchRunner(WatchingEngine(), time.monotonic, memory)
    for _ in range(2):
        with pytest.raises(EngineError, match="bus"):
            await runner.run([strip(1, 1)])
    with pytest.raises(StartError, match="1 images of 4 patches: the GPU fell off the bus"):
        runner.warm_up()
    runner.close()


async def test_logits_that_are_no_numbers_get_no_ranking_and_harm_no_batch_mate() -> None:
    class SickEngine:
        def run(
            self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True
        ) -> NDArray[np.float32]:
            logits = one_hot(patches)
            logits[patches[:, 0, 0] == 7, 200] = np.inf
            logits[patches[:, 0, 0] == 8, 3] = np.nan
            return logits

    runner = BatchRunner(SickEngine(), time.monotonic)
    run = await runner.run([sequence(fill) for fill in (6, 7, 8, 9)])
    runner.close()
    assert best(run) == [6, None, None, 9]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
@pytest.mark.parametrize(("lanes", "polite", "behind"), [(1, True, False), (2, True, True), (2, False, False)])
async def test_lanes_let_decoding_go_first_and_a_single_run_does_not(lanes: int, polite: bool, behind: bool) -> None:
    niceness: list[int] = []

    class NotingEngine:
        def run(
            self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True
        ) -> NDArray[np.float32]:
            niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return one_hot(patches)

    before = os.getpriority(os.PRIO_PROCESS, 0)
    runner = BatchRunner(NotingEngine(), time.monotonic, lanes=lanes, polite=polite)
    await runner.run([sequence(1)])
    runner.close()
    assert niceness == [min(19, before + 10) if behind else before]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before, "it is of the thread alone"


def test_models_that_share_a_room_take_turns() -> None:
    class OneAtATime:
        def __init__(self) -> None:
            self.inside = self.most = 0

        def run(
            self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True
        ) -> NDArray[np.float32]:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.002)  # gives the other thread its chance
            self.inside -= 1
            return np.zeros((len(patches), 2), np.float32)

    async def run_both(room: EngineRoom | None) -> int:
        engine = OneAtATime()
        runners = [BatchRunner(engine, time.monotonic, room=room) for _ in range(2)]
        image = PatchSequence(np.zeros((1, 12), np.uint8), (1, 1), 2, 2, "PNG")
        await asyncio.gather(*(runner.run([image]) for runner in runners for _ in range(10)))
        return engine.most

    assert asyncio.run(run_both(EngineRoom(time.monotonic, 1))) == 1
    assert asyncio.run(run_both(None)) == 2
