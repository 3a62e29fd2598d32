"""Patch memory that an HTTP process and the engine process share: slots of one size in one anonymous mapping.

A decode thread writes the patches of an image into a slot, the engine process reads them there and leaves the ranking,
and what else is wanted, behind them: until an answer has arrived the patches are as they were, for a successor of the
engine process may need them. `N` patches, `P*P*C` values of a patch, `K` ranked classes, `D` features.

The mapping is reserved before the models are known. The HTTP process cuts it into slots afterwards, which both sides
call by the page at which they begin. Pages that were never written cost nothing.
"""

import mmap
import weakref
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from model.manifest import Preprocessing
from service.errors import NoPatchMemoryError
from service.extras import MOST_FEATURES, Found
from service.predictions import MOST_RANKED, Ranking

_PAGE_BYTES = 4096
_RANKING_BYTES = 12 * MOST_RANKED
_EMBEDDING_BYTES = 4 * MOST_FEATURES


class PatchSlab:
    """Args: bytes of address space, for all slots."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._memory = mmap.mmap(-1, capacity_bytes)  # shared with every process forked from this one
        self._start = _address(np.frombuffer(self._memory, np.uint8, 1))
        self._free: deque[int] = deque()
        self.slot_bytes = 0

    def cut(self, specs: Iterable[Preprocessing]) -> int:
        """Divide into slots that each hold any image of these models, and its answer; all are free.

        Returns:
            How many slots there are.
        """
        self.slot_bytes = _whole_pages(max(map(slot_bytes_of, specs)))
        slots = self._capacity_bytes // self.slot_bytes
        self._free = deque(slot * (self.slot_bytes // _PAGE_BYTES) for slot in range(slots))
        return slots

    def take(self, patches: int, patch_dim: int) -> NDArray[np.uint8]:
        """Memory for one image: uint8 [N, P*P*C]. Its slot is free again when nobody holds the array; thread-safe.

        Raises:
            NoPatchMemoryError: if there is no free slot.
        """
        try:
            page = self._free.pop()  # of the slot used last: its pages are there already
        except IndexError:
            raise NoPatchMemoryError from None
        # The base of every array that is made of it.
        flat = np.frombuffer(self._memory, np.uint8, patches * patch_dim, page * _PAGE_BYTES)
        weakref.finalize(flat, self._free.append, page).atexit = False
        return flat.reshape(patches, patch_dim)

    def page_of(self, array: NDArray[np.uint8]) -> int:
        """Where an array from `take` begins."""
        return int((_address(array) - self._start) // _PAGE_BYTES)

    def patches(self, page: int, patches: int, patch_dim: int, max_patches: int) -> NDArray[np.uint8]:
        """What begins at a page as uint8 [N, P*P*C].

        Raises:
            ValueError: if it is no image of at most `max_patches`, or not inside the memory with its answer.
        """
        size, start = patches * patch_dim, page * _PAGE_BYTES
        last = self._capacity_bytes - _behind(size) - _answer_bytes(patches)
        if not 0 < patches <= max_patches or not 0 <= start <= last:
            raise ValueError(f"there is no room for {patches} patches at page {page}")
        return np.frombuffer(self._memory, np.uint8, size, start).reshape(patches, patch_dim)

    def write_ranking(self, page: int, size: int, ranking: Ranking) -> None:
        """Leave a ranking behind the patches, which are `size` bytes."""
        scores, indices = self._ranking_behind(page, size, len(ranking.indices))
        scores[:], indices[:] = ranking.scores, ranking.indices

    def read_ranking(self, page: int, size: int, count: int) -> Ranking:
        """The `count` classes of the ranking that was left there, as a copy."""
        scores, indices = self._ranking_behind(page, size, count)
        return Ranking(indices.copy(), scores.copy())

    def write_found(self, page: int, size: int, found: Found) -> None:
        """Leave what else was wanted, as `write_ranking`.

        Raises:
            ValueError: if an embedding has more than `MOST_FEATURES` values.
        """
        start = page * _PAGE_BYTES + _behind(size) + _RANKING_BYTES
        if found.embedding is not None:
            if len(found.embedding) > MOST_FEATURES:
                raise ValueError(f"there is no room for an embedding of {len(found.embedding)} values")
            np.frombuffer(self._memory, np.float32, len(found.embedding), start)[:] = found.embedding
        if found.attention is not None:
            start += _EMBEDDING_BYTES
            np.frombuffer(self._memory, np.float32, len(found.attention), start)[:] = found.attention

    def read_found(self, page: int, size: int, features: int, patches: int) -> Found:
        """An embedding of so many values and the attention to so many patches, as copies; 0: none was wanted."""
        start = page * _PAGE_BYTES + _behind(size) + _RANKING_BYTES
        embedding = np.frombuffer(self._memory, np.float32, features, start)
        attention = np.frombuffer(self._memory, np.float32, patches, start + _EMBEDDING_BYTES)
        return Found(embedding.copy() if features else None, attention.copy() if patches else None)

    def _ranking_behind(self, page: int, size: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        start = page * _PAGE_BYTES + _behind(size)
        scores = np.frombuffer(self._memory, np.float64, count, start)
        return scores, np.frombuffer(self._memory, np.int32, count, start + 8 * count)


class SlabMemory:
    """The slots as one model sees them. Args: the slots, and the values of a patch."""

    def __init__(self, slab: PatchSlab, patch_dim: int) -> None:
        self._slab = slab
        self._patch_dim = patch_dim

    def take(self, patches: int) -> NDArray[np.uint8]:
        """Memory for one image, see `PatchSlab.take`."""
        return self._slab.take(patches, self._patch_dim)


def slot_bytes_of(spec: Preprocessing) -> int:
    """What the largest image of a model needs, with its answer."""
    return _behind(spec.max_patches * spec.patch_dim) + _answer_bytes(spec.max_patches)


def slots_of(spec: Preprocessing, capacity_bytes: int) -> int:
    """How many slots for a model there are in so much memory."""
    return capacity_bytes // _whole_pages(slot_bytes_of(spec))


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE_BYTES) * _PAGE_BYTES


def _answer_bytes(patches: int) -> int:
    """Room for a ranking, an embedding, and the attention to each patch. Pages that nobody writes to cost nothing."""
    return _RANKING_BYTES + _EMBEDDING_BYTES + 4 * patches


def _behind(size: int) -> int:
    return -(-size // 8) * 8  # where scores may lie


def _address(array: NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])
