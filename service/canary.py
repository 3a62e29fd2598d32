"""The canary: the golden image, sent through the queue now and then to see whether the model still answers well.

A device that has failed can go on answering, quickly and wrongly; nothing but the answer shows it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from model.golden import golden_patches
from model.manifest import Preprocessing
from model.preprocess import PatchSequence
from service.errors import DeviceLostError, Internal, RequestError
from service.pipeline import Queue
from service.predictions import Ranking, rank

_TOLERANCE = 0.02  # of a share of the softmax; float16 on a GPU differs by less between batches
_TIMEOUT_S = 30.0
_MISSES = 2  # in a row make a sick model


class Canary:
    """Asks one queue.

    Args:
        queue: in front of the engine.
        spec: of the model.
        healthy: logits of the golden image as they were when the model was checked, float32 [C].
        sick: called once, when the model answers otherwise.
        clock: that of the queue, monotonic, seconds.
    """

    def __init__(
        self,
        queue: Queue,
        spec: Preprocessing,
        healthy: NDArray[np.float32],
        sick: Callable[[DeviceLostError], None],
        clock: Callable[[], float],
    ) -> None:
        side = spec.patch_size
        rows, columns = spec.native_grid
        self._image = PatchSequence(golden_patches(spec), spec.native_grid, columns * side, rows * side, "")
        self._queue = queue
        self._healthy = rank(healthy)
        self._sick = sick
        self._clock = clock
        self._misses = 0

    async def watch(self, interval_s: float) -> None:
        """Ask until cancelled, or until the model is sick."""
        while self._misses < _MISSES:
            await asyncio.sleep(interval_s if self._misses == 0 else min(1.0, interval_s))
            await self.ask()
        self._sick(DeviceLostError("the golden image is not answered as it was when the model was checked"))

    async def ask(self) -> None:
        """Ask once. An answer that does not come in time, or is refused because of load, says nothing."""
        with suppress(RequestError):
            try:
                answer = await self._queue.submit(self._image, self._clock() + _TIMEOUT_S)
            except Internal:
                self._misses += 1
            else:
                self._misses = 0 if same_answer(answer.ranking, self._healthy) else self._misses + 1


def same_answer(found: Ranking, expected: Ranking) -> bool:
    """Whether every class that either ranks has nearly the same share."""
    scores = dict(zip(expected.indices.tolist(), expected.scores.tolist(), strict=True))
    pairs = zip(found.indices.tolist(), found.scores.tolist(), strict=True)
    shared = [abs(score - scores.pop(index, 0.0)) for index, score in pairs]
    return all(difference <= _TOLERANCE for difference in [*shared, *scores.values()])
