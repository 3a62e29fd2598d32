"""From logits to the best labels. `C` classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label: its place among the logits, and its share of the softmax, 0 to 1."""

    label: str
    index: int
    score: float


def top_k(logits: NDArray[np.float32], labels: tuple[str, ...], k: int) -> list[Prediction]:
    """The `k` most likely labels, best first; equal scores in the order of the labels.

    Args:
        logits: float32 [C], finite.
        labels: C of them.
        k: from 1 to C.
    """
    scores = softmax(logits)
    best = np.argsort(-scores, kind="stable")[:k]
    return [Prediction(labels[index], int(index), float(scores[index])) for index in best]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax in double precision, shifted so that nothing overflows: [C] to [C]."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    shares: NDArray[np.float64] = shifted / shifted.sum()
    return shares
