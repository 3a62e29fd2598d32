"""Patch memory that an HTTP process and the engine process share: slots of one size in one anonymous mapping.

A decode thread writes the patches of an image into a slot, the engine process reads them there and leaves the ranking
in their place. `N` patches, `P*P*C` values of a patch, `K` ranked classes.

The mapping is reserved before the model is known and cut into slots afterwards. Pages that were never written cost
nothing.
"""

import mmap
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest
from service.errors import NoPatchMemoryError
from service.predictions import MOST_RANKED, Ranking

_PAGE_BYTES = 4096


class PatchSlab:
    """Args: bytes of address space, for all slots."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._memory = mmap.mmap(-1, capacity_bytes)  # shared with every process forked from this one
        self._start = _address(np.frombuffer(self._memory, np.uint8, 1))
        self._free: deque[int] = deque()
        self._slot_bytes = self._patch_dim = self._ranked = 0

    def cut(self, manifest: Manifest) -> int:
        """Divide into slots that each hold the patches or the ranking of any image of this model; all are free.

        Returns:
            How many slots there are.
        """
        spec = manifest.preprocessing
        self._patch_dim = spec.patch_dim
        self._ranked = min(MOST_RANKED, len(manifest.labels))
        needed = max(spec.max_patches * spec.patch_dim, 12 * self._ranked)
        self._slot_bytes = -(-needed // _PAGE_BYTES) * _PAGE_BYTES
        slots = self._capacity_bytes // self._slot_bytes
        self._free = deque(range(slots))
        return slots

    def take(self, patches: int) -> NDArray[np.uint8]:
        """Memory for one image: uint8 [N, P*P*C]. Its slot is free again when nobody holds the array; thread-safe.

        Raises:
            NoPatchMemoryError: if there is no free slot.
        """
        try:
            slot = self._free.pop()  # the one used last: its pages are there already
        except IndexError:
            raise NoPatchMemoryError from None
        flat = self._flat(slot, patches)  # the base of every array that is made of it
        weakref.finalize(flat, self._free.append, slot).atexit = False
        return flat.reshape(patches, self._patch_dim)

    def slot_of(self, array: NDArray[np.uint8]) -> int:
        """The slot in which an array from `take` lies."""
        return int((_address(array) - self._start) // self._slot_bytes)

    def patches(self, slot: int, patches: int) -> NDArray[np.uint8]:
        """The beginning of a slot as uint8 [N, P*P*C].

        Raises:
            ValueError: if that is not inside one slot.
        """
        return self._flat(slot, patches).reshape(patches, self._patch_dim)

    def write_ranking(self, slot: int, ranking: Ranking) -> None:
        """Leave a ranking in the place of the patches."""
        scores, indices = self._ranking_in(slot)
        scores[:], indices[:] = ranking.scores, ranking.indices

    def read_ranking(self, slot: int) -> Ranking:
        """What was left there, as a copy."""
        scores, indices = self._ranking_in(slot)
        return Ranking(indices.copy(), scores.copy())

    def _ranking_in(self, slot: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        start, count = slot * self._slot_bytes, self._ranked
        scores = np.frombuffer(self._memory, np.float64, count, start)
        return scores, np.frombuffer(self._memory, np.int32, count, start + 8 * count)

    def _flat(self, slot: int, patches: int) -> NDArray[np.uint8]:
        size = patches * self._patch_dim
        if not 0 < size <= self._slot_bytes or not 0 <= slot < self._capacity_bytes // self._slot_bytes:
            raise ValueError(f"slot {slot} has no room for {patches} patches")
        return np.frombuffer(self._memory, np.uint8, size, slot * self._slot_bytes)


def _address(array: NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])
