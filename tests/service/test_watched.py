import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import EngineError
from service.watched import Runs, WatchedEngine

FAILING = 9


class GatedEngine:
    """A run ends when the gate of its batch, which is named by its first value, is opened."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.gates = {name: threading.Event() for name in range(10)}

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        name = int(patches[0, 0, 0])
        self.began.release()
        assert self.gates[name].wait(5)
        if name == FAILING:
            raise EngineError("bad luck")
        return np.full((1, 2), name, np.float32)


class Bench:
    """Begins runs at 101 s, 102 s and so on, and ends them in any order."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.now_s = 100.0
        self.engine = GatedEngine()
        self.shown_s = 0.0
        self.kept = Runs(lambda: self.now_s, self._show)
        self.watched = [WatchedEngine(self.engine, self.kept) for _ in range(2)]  # two models
        self._pool = pool
        self._runs: dict[int, Future[NDArray[np.float32]]] = {}

    def begin(self, name: int) -> None:
        self.now_s += 1
        patches, grid = np.full((1, 1, 12), name, np.uint8), np.ones((1, 2), np.int64)
        self._runs[name] = self._pool.submit(self.watched[name % 2].run, patches, grid, alone=False)
        assert self.engine.began.acquire(timeout=5)

    def end(self, name: int) -> list[float]:
        self.engine.gates[name].set()
        return self._runs[name].result(5)[0].tolist()  # type: ignore[no-any-return]

    def _show(self, started_s: float) -> None:
        self.shown_s = started_s


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(3) as pool:
        yield Bench(pool)


def test_the_oldest_run_shows_whichever_ends_first(bench: Bench) -> None:
    assert bench.shown_s == 0
    for name in (1, 2, 3):
        bench.begin(name)
    assert bench.shown_s == 101
    assert bench.end(2) == [2, 2]
    assert bench.shown_s == 101
    bench.end(1)
    assert bench.shown_s == 103
    bench.begin(4)
    assert bench.shown_s == 103
    assert bench.kept.running_s(110.0) == 7
    bench.end(3)
    assert bench.shown_s == 104
    bench.end(4)
    assert bench.shown_s == 0


def test_a_run_that_fails_does_not_stay(bench: Bench) -> None:
    bench.begin(FAILING)
    bench.begin(1)
    with pytest.raises(EngineError):
        bench.end(FAILING)
    assert bench.shown_s == 102
    bench.end(1)
    assert bench.shown_s == 0
