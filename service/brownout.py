"""Brown-out: under load every image gets fewer patches, before anybody is refused. Pure: no clock, no thread.

How many fewer, and what it costs in accuracy, is what the model's publisher has measured (`model.manifest.Accuracy`); a
model without such a curve is never degraded.
"""

from dataclasses import dataclass
from itertools import pairwise

from model.manifest import Manifest

_SHARES = (0.75, 0.5)  # of the patches that an image has when all is well
_HIGH = 0.5  # of the wait aimed at: over it for `_RISE_S`, one step more
_LOW = 0.2  # under it for `_FALL_S`, one step less
_RISE_S = 1.0
_FALL_S = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """One budget.

    Attributes:
        max_patches: the most that an image may have.
        top1: measured accuracy with this budget, 0 to 1, interpolated between the points of the curve.
    """

    max_patches: int
    top1: float


def steps_of(manifest: Manifest, max_loss: float) -> tuple[Step, ...]:
    """The budgets from full to smallest, the first of them without any loss.

    Args:
        manifest: of the model.
        max_loss: the most accuracy that a step may cost, as a share of all images, 0 to 1.

    Returns:
        Empty if the model has no measured curve.
    """
    if not manifest.accuracy.curve:
        return ()
    spec = manifest.preprocessing
    full = spec.max_patches if spec.resize == "aspect" else spec.native_patches
    best = _top1(manifest, full)
    budgets = [full, *(max(1, int(full * share)) for share in _SHARES)]
    return tuple(Step(budget, top1) for budget in budgets if best - (top1 := _top1(manifest, budget)) <= max_loss)


def _top1(manifest: Manifest, budget: int) -> float:
    """On the line between two points of the curve; outside of it, its first or last point."""
    curve = manifest.accuracy.curve
    for (low, low_top1), (high, high_top1) in pairwise(curve):
        if low <= budget <= high:
            return low_top1 + (high_top1 - low_top1) * (budget - low) / (high - low)
    return curve[0][1] if budget < curve[0][0] else curve[-1][1]


class BrownOut:
    """Which step is in force. It rises and falls by one at a time, and falls later than it rises.

    Args:
        steps: see `steps_of`; with fewer than two nothing ever happens.
        target_wait_s: the wait in front of the engine that is aimed at, seconds.
    """

    def __init__(self, steps: tuple[Step, ...], target_wait_s: float) -> None:
        self.steps = steps
        self.level = 0
        self._target_wait_s = target_wait_s
        self._high_since_s: float | None = None
        self._low_since_s: float | None = None

    @property
    def max_patches(self) -> int | None:
        """The budget in force; None: the model's own."""
        return self.steps[self.level].max_patches if self.level else None

    def observe(self, wait_s: float, now_s: float) -> None:
        """Learn how long the accepted work will take; to be told several times a second, also when nothing waits.

        Args:
            wait_s: seconds.
            now_s: on a monotonic clock, seconds.
        """
        self._high_since_s = _since(self._high_since_s, now_s, holds=wait_s > _HIGH * self._target_wait_s)
        self._low_since_s = _since(self._low_since_s, now_s, holds=wait_s < _LOW * self._target_wait_s)
        if self._high_since_s is not None and now_s - self._high_since_s >= _RISE_S:
            self._go_to(self.level + 1)
        elif self._low_since_s is not None and now_s - self._low_since_s >= _FALL_S:
            self._go_to(self.level - 1)

    def _go_to(self, level: int) -> None:
        """The next step needs as long again."""
        self.level = min(max(level, 0), max(0, len(self.steps) - 1))
        self._high_since_s = self._low_since_s = None


def _since(before_s: float | None, now_s: float, *, holds: bool) -> float | None:
    if not holds:
        return None
    return now_s if before_s is None else before_s
