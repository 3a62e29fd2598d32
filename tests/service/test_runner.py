import asyncio
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from model.preprocess import PatchSequence
from service.buckets import Buckets
from service.buffers import BatchBuffer, BatchMemory
from service.errors import EngineError, StartError
from service.runner import BatchRunner

pytestmark = pytest.mark.anyio


class CountingEngine:
    def __init__(self) -> None:
        self.inside = 0
        self.most_inside = 0
        self.may_end = threading.Event()

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        assert self.may_end.wait(5)
        self.inside -= 1
        if not patches.any():
            raise EngineError("blank")
        return patches[:, 0, :2].astype(np.float32)


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
    assert [run.logits.tolist() for run in runs] == [[[3, 3]], [[4, 4]]]
    assert all(run.seconds > 0 for run in runs)


async def test_a_failure_frees_the_engine() -> None:
    engine = CountingEngine()
    engine.may_end.set()
    runner = BatchRunner(engine, time.monotonic)
    with pytest.raises(EngineError):
        await runner.run([sequence(0)])
    assert (await runner.run([sequence(5)])).logits.tolist() == [[5, 5]]
    runner.close()


class WatchingEngine:
    """Remembers the shape, the memory and the grid of each batch; answers with the first value of each image."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.addresses: list[int] = []
        self.grids: list[list[list[int]]] = []

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        self.shapes.append(patches.shape)
        self.addresses.append(patches.ctypes.data)
        self.grids.append(grid.tolist())
        if patches[0, 0, 0] == 13:
            raise EngineError("bad luck")
        return patches[:, 0, :1].astype(np.float32)


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
    assert run.logits.tolist() == [[1], [2], [3]]
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
            assert (await runner.run([strip(fill, 5)])).logits.tolist() == [[fill]]
    runner.close()
    assert len(set(engine.addresses)) == 2


async def test_a_batch_that_is_larger_than_the_last_gets_more_memory() -> None:
    runner = BatchRunner(WatchingEngine(), time.monotonic)
    for length in (1, 50, 3, 500):
        run = await runner.run([strip(length % 251, length)] * 3)
        assert run.logits.tolist() == [[length % 251]] * 3
    runner.close()


def test_every_shape_warms_up_in_every_buffer() -> None:
    engine = WatchingEngine()
    runner = BatchRunner(engine, time.monotonic, BatchMemory(warm_up=[(2, 8), (1, 4)], patch_dim=12))
    runner.warm_up()
    runner.close()
    assert engine.shapes == [(2, 8, 12), (1, 4, 12)] * 2
    assert engine.grids == [[[1, 1], [1, 1]], [[1, 1]]] * 2


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
