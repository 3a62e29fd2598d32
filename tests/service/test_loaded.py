import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_artifact import MANIFEST

from model.preprocess import PatchSequence
from service.batching import BatchLimits, Lanes
from service.buffers import BatchMemory
from service.engine import Model
from service.errors import StartError
from service.loaded import Loader
from service.scheduler import SchedulerObserver
from service.settings import Settings
from service.watched import Runs, WatchedEngine

pytestmark = pytest.mark.anyio


class SlowAtFirst:
    """An engine whose shapes are slow at their first run."""

    def __init__(self) -> None:
        self.model = Model(MANIFEST, "sha256:1", "cpu")
        self.lanes = Lanes()
        self.golden_logits = np.zeros(3, np.float32)
        self.runs = 0
        self.closed = False

    def run(self, patches: NDArray[np.uint8], _: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        self.runs += 1
        return np.zeros((len(patches), 3), np.float32)

    def open_memory(self, _: BatchLimits) -> BatchMemory:
        return BatchMemory(warm_up=[(1, 4), (2, 4)], patch_dim=48)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def engine() -> SlowAtFirst:
    return SlowAtFirst()


def loader(engine: SlowAtFirst, **more: Any) -> Loader:
    return Loader(lambda _: engine, SchedulerObserver(), time.monotonic, **more)


async def test_a_warm_up_may_take_as_long_as_it_likes(engine: SlowAtFirst) -> None:
    """Nobody sees its runs, who could take them for one that hangs."""
    shown: list[float] = []
    runs = Runs(time.monotonic, shown.append)
    loaded = loader(engine, watch=lambda warm: WatchedEngine(warm, runs))(Settings())
    assert (engine.runs, shown) == (4, [])  # two shapes in each of two buffers
    image = PatchSequence(np.zeros((4, 48), np.uint8), (2, 2), 8, 8, "PNG")
    await loaded.queue.submit(image, time.monotonic() + 10)
    assert (shown[0] > 0, shown[1:]) == (True, [0])
    await loaded.close()
    assert engine.closed


def test_a_model_for_which_something_is_not_ready_gives_its_memory_back(engine: SlowAtFirst) -> None:
    asked: list[object] = []

    def unable(spec: object) -> None:
        asked.append(spec)
        raise StartError("no decoders")

    with pytest.raises(StartError, match="no decoders"):
        loader(engine, prepare=unable)(Settings())
    assert (asked, engine.closed) == ([MANIFEST.preprocessing], True)
