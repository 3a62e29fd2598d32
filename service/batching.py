"""Which of the waiting images share the next batch, and when it may start: pure planning, no clock, no thread.

`B` images, `N` patches, `P` patch side. A batch is padded to its longest image, so it costs `B * max(N)` patches;
what is not in an image is padding.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.preprocess import PatchSequence


class Waiting(Protocol):
    """What planning needs to know of a waiting image."""

    @property
    def length(self) -> int:
        """Patches."""

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns)."""

    @property
    def deadline_s(self) -> float:
        """When an answer is of no use any more, seconds on the caller's clock."""

    @property
    def cancelled(self) -> bool:
        """Nobody waits for the answer."""


Item = TypeVar("Item", bound=Waiting)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold.

    Attributes:
        max_patches: B * max(N).
        max_images: B.
        overhead_patches: what one more engine run costs, in patches: padding up to it is cheaper than a second run.
        mixed_grids: False if all images of a batch must have the same grid.
    """

    max_patches: int
    max_images: int
    overhead_patches: int
    mixed_grids: bool = True


@dataclass(frozen=True, slots=True)
class Plan(Generic[Item]):
    """The next batch.

    Attributes:
        batch: the images that run; empty if none is alive.
        expired: images whose deadline has passed.
        cancelled: images that nobody waits for.
        full: the batch could not take one more image of its kind.
    """

    batch: list[Item]
    expired: list[Item]
    cancelled: list[Item]
    full: bool


@dataclass(frozen=True, slots=True)
class Lanes:
    """How many batches the engine runs at a time.

    Attributes:
        number: batches in the engine.
        wide: a batch that runs alone has all cores, and so ends sooner than in a lane; nothing may run beside it.
    """

    number: int = 1
    wide: bool = True


@dataclass(frozen=True, slots=True)
class Turn:
    """What may start now.

    Attributes:
        alone: on all cores, with nothing beside it; else in one lane.
        max_images: B, to leave some for the other lanes; None: as many as the limits of a batch allow.
        only_full: it will have to wait, so only a batch that could not grow meanwhile.
    """

    alone: bool
    max_images: int | None = None
    only_full: bool = False


def next_turn(lanes: Lanes, running: int, waiting: int, *, alone: bool) -> Turn | None:
    """Whether and how one more batch may start; None: not now.

    With one lane a second batch is closed early, to be stacked while the first runs. With several this would gain
    nothing: another lane computes while one is filled.

    With several lanes, images that fill less than half of them are faster on all cores; others are spread over the
    free lanes, so that a burst uses every core.

    Args:
        lanes: of the engine.
        running: batches that have started and not ended.
        waiting: images, at least 1.
        alone: one of the running batches has all cores.
    """
    if lanes.number == 1:
        return Turn(alone=True, only_full=running == 1) if running < 2 else None
    free = lanes.number - running
    if alone or free <= 0:
        return None
    if lanes.wide and not running and 2 * waiting <= lanes.number:
        return Turn(alone=True)
    return Turn(alone=False, max_images=math.ceil(waiting / free))


def plan_batch(waiting: Iterable[Item], now_s: float, limits: BatchLimits) -> Plan[Item]:
    """Choose the next batch around the oldest living image.

    The oldest always goes, so nobody starves because of its size, even one that is over the limits alone. Images of
    similar length join it, the one that adds the least padding first, older before younger.

    Args:
        waiting: in order of arrival.
        now_s: on the clock of the deadlines, seconds.
        limits: of one batch.
    """
    cancelled: list[Item] = []
    expired: list[Item] = []
    living: list[Item] = []
    for item in waiting:
        (cancelled if item.cancelled else expired if item.deadline_s <= now_s else living).append(item)
    if not living:
        return Plan([], expired, cancelled, full=False)
    batch, full = _grow(living[0], living[1:], limits)
    return Plan(batch, expired, cancelled, full)


def _grow(anchor: Item, others: Sequence[Item], limits: BatchLimits) -> tuple[list[Item], bool]:
    if not limits.mixed_grids:
        others = [item for item in others if item.grid == anchor.grid]
    # Sorting is stable: among equals the older comes first on both sides.
    shorter = sorted((item for item in others if item.length < anchor.length), key=lambda item: -item.length)
    longer = sorted((item for item in others if item.length >= anchor.length), key=lambda item: item.length)
    batch, longest, padding, left, right = [anchor], anchor.length, 0, 0, 0
    while left < len(shorter) or right < len(longer):
        down = longest - shorter[left].length if left < len(shorter) else None
        up = (longer[right].length - longest) * len(batch) if right < len(longer) else None
        take_longer = down is None or (up is not None and up <= down)
        added, new_longest = (up, longer[right].length) if take_longer else (down, longest)
        if len(batch) >= limits.max_images or (len(batch) + 1) * new_longest > limits.max_patches:
            return batch, True
        if padding + (added or 0) > limits.overhead_patches:
            return batch, False
        batch.append(longer[right] if take_longer else shorter[left])
        left, right = (left, right + 1) if take_longer else (left + 1, right)
        longest, padding = new_longest, padding + (added or 0)
    return batch, len(batch) >= limits.max_images or (len(batch) + 1) * longest > limits.max_patches


def fill(sequences: Sequence[PatchSequence], patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> None:
    """Write images into the memory of a batch, one copy an image.

    Bytes behind an image stay what they were: padding may hold anything. Rows behind the last image become images of
    one patch, which every model takes; what they answer is of no interest.

    Args:
        sequences: at most B images of at most N patches.
        patches: uint8 [B, N, P*P*3].
        grid: int64 [B, 2].
    """
    grid[len(sequences) :] = 1
    for place, sequence in enumerate(sequences):
        patches[place, : len(sequence.patches)] = sequence.patches
        grid[place] = sequence.grid


def assemble(sequences: Sequence[PatchSequence]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images as one batch in new memory, padded on the right with zeros.

    Returns:
        patches uint8 [B, max(N), P*P*3] and grid int64 [B, 2].
    """
    longest = max(len(sequence.patches) for sequence in sequences)
    patches = np.zeros((len(sequences), longest, sequences[0].patches.shape[1]), np.uint8)
    grid = np.empty((len(sequences), 2), np.int64)
    fill(sequences, patches, grid)
    return patches, grid
