"""Memory of batches, used again and again. `B` images, `N` patches, `P*P*3` values of a patch.

New memory for every batch costs a page fault for every 4 KiB that is written. Where batches run one after the other two
buffers are enough: one is filled while the other is in the engine. Where several run at a time each has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.buckets import Buckets


class BatchBuffer:
    """Memory of one batch on the host; grows to the largest batch that it has held."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def shaped(self, images: int, length: int, patch_dim: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Arrays over this memory, holding whatever was there; valid until the next call.

        Returns:
            patches uint8 [B, N, P*P*3], C-contiguous, and grid int64 [B, 2].
        """
        size = images * length * patch_dim
        if size > self._memory.size:
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size].reshape(images, length, patch_dim), np.empty((images, 2), np.int64)

    def ready(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> None:
        """The arrays of `shaped` are filled and run next. Here nothing is left to do.

        Raises:
            EngineError: if a device fails.
        """


@dataclass(frozen=True, slots=True)
class BatchMemory:
    """What batches are written into, and in which shapes.

    Attributes:
        buffers: one for each batch that is under way.
        buckets: what the shape of a batch is padded to.
        warm_up: shapes [B, N] that each buffer runs before the service is ready.
        patch_dim: P*P*3, for the warm-up.
    """

    buffers: Sequence[BatchBuffer] = field(default_factory=lambda: (BatchBuffer(), BatchBuffer()))
    buckets: Buckets = field(default_factory=Buckets)
    warm_up: Sequence[tuple[int, int]] = ()
    patch_dim: int = 0
