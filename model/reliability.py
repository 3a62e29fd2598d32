"""Whether a model is right as often as it says: the expected calibration error and what a reliability plot shows.

As in "On Calibration of Modern Neural Networks" (Guo et al. 2017, section 2).

Axes: `M` images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bin:
    """Images whose best class had a score in one interval."""

    confidence: float  # mean score, 0..1
    accuracy: float  # share that was right, 0..1
    images: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """The expected calibration error, 0..1, and the bins that have images, by rising confidence."""

    error: float
    bins: tuple[Bin, ...]


def calibrate(confidences: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 15) -> Calibration:
    """Compare scores with what came of them.

    Args:
        confidences: `[M]`, the score of each image's best class, 0..1.
        right: `[M]`, whether that class was the right one.
        bins: intervals of equal width; a score on an edge belongs to the lower one.

    Returns:
        The mean over images of the distance between accuracy and confidence of their bin.
    """
    place = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    found = tuple(
        Bin(float(confidences[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in (place == number for number in range(bins))
        if inside.any()
    )
    distance = sum(each.images * abs(each.accuracy - each.confidence) for each in found)
    return Calibration(distance / len(confidences), found)
