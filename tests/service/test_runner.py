import asyncio
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from model.preprocess import PatchSequence
from service.errors import EngineError
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
