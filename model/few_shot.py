"""A linear classifier on frozen features, in closed form (paper, section 4.1, "few-shot accuracies").

Axes: `M` images, `D` features, `K` classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinearMap:
    """Features to scores: `x @ weights + bias`."""

    weights: Array  # [D, K]
    bias: Array  # [K]

    def scores(self, features: Array) -> Array:
        """`[M, D]` to `[M, K]`."""
        scores: Array = features @ self.weights + self.bias
        return scores


def fit(features: Array, targets: NDArray[np.int64], classes: int, l2: float) -> LinearMap:
    """Regularised least squares onto targets of 1 for the right class and -1 for the others.

    It minimises `|x W + b - y|^2 + l2 |W|^2` over all images; the bias is not regularised.

    Args:
        features: `[M, D]`.
        targets: `[M]`, class of each image.
        classes: K.
        l2: weight of the regularisation, above 0.
    """
    wanted = np.where(targets[:, None] == np.arange(classes), 1.0, -1.0)  # [M, K]
    middle, mean = features.mean(0), wanted.mean(0)
    centred = features - middle  # with both centred the best bias is 0, and drops out of the equations
    system = centred.T @ centred + l2 * np.eye(features.shape[1])
    weights = np.linalg.solve(system, centred.T @ (wanted - mean))
    return LinearMap(weights, mean - middle @ weights)


def standardised(train: Array, *others: Array) -> list[Array]:
    """Features with mean 0 and deviation 1 over the training images, so that one `l2` suits models of any scale."""
    mean, deviation = train.mean(0), train.std(0)
    return [(each - mean) / np.maximum(deviation, 1e-6) for each in (train, *others)]


def draw_shots(targets: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """Indices of so many images of each class, or of all it has."""
    generator = np.random.default_rng(seed)
    members = (np.flatnonzero(targets == label) for label in np.unique(targets))
    return np.concatenate([generator.permutation(each)[:shots] for each in members])
