"""Pictures of measurements, with matplotlib.

Axes: `K` classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.reliability import Calibration


def draw_confusion(matrix: NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """Write a PNG of a confusion matrix `[K, K]`; rows are what an image shows, columns what the model said."""
    side = max(4.0, 0.45 * len(labels) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("said")
    axes.set_ylabel("shown")
    figure.savefig(path, dpi=120)


def draw_reliability(calibration: Calibration, path: Path) -> None:
    """Write a PNG of accuracy against confidence, a point a bin; the diagonal is a model that knows what it knows."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    most = max(each.images for each in calibration.bins)
    sizes = [20 + 180 * each.images / most for each in calibration.bins]
    axes.plot([each.confidence for each in calibration.bins], [each.accuracy for each in calibration.bins])
    axes.scatter([each.confidence for each in calibration.bins], [each.accuracy for each in calibration.bins], s=sizes)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_title(f"expected calibration error {calibration.error:.3f}")
    figure.savefig(path, dpi=120)
