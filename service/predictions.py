"""From logits to the best labels. `C` classes, `K` ranked ones.

Ranking works on all classes, so it belongs into the thread that has run the batch: on arrays of this size NumPy gives
Python's lock away at every step, and the event loop would wait for it as often.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_RANKED = 100  # the largest `k` that a caller may ask for


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The best classes of one image, best first.

    Attributes:
        indices: int32 [K], places among the logits.
        scores: float64 [K], shares of the softmax over all classes.
        logits: float32 [C], those of all classes; None where only the best have come from another process.
    """

    indices: NDArray[np.int32]
    scores: NDArray[np.float64]
    logits: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label: its place among the logits, and its share of the softmax, 0 to 1."""

    label: str
    index: int
    score: float


def rank(logits: NDArray[np.float32]) -> Ranking:
    """The best of one image; equal logits in the order of the labels.

    Args:
        logits: float32 [C], finite; C is 0 for a model without a head.

    Returns:
        All classes, or the best `MOST_RANKED`.
    """
    count = min(MOST_RANKED, len(logits))
    if count == 0:
        return Ranking(np.empty(0, np.int32), np.empty(0), logits)
    # All that are no worse than the last one wanted, ties included; sorting is stable.
    among = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
    best = among[np.argsort(-logits[among], kind="stable")[:count]]
    return Ranking(best.astype(np.int32), softmax(logits)[best], logits)


def rank_all(logits: NDArray[np.float32]) -> list[Ranking | None]:
    """`rank` for a whole batch at once: a step of NumPy costs as much for ten small rows as for one.

    Args:
        logits: float32 [B, C].

    Returns:
        Of each image; None where its logits are not all finite numbers.
    """
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(logits), axis=1)
    rows = logits[finite]
    count = min(MOST_RANKED, logits.shape[1])
    if len(rows) == 0 or count == 0:
        return [rank(of_image) if good else None for of_image, good in zip(logits, finite, strict=True)]
    edge = np.partition(rows, -count, axis=1)[:, -count, None]
    places = np.nonzero(rows >= edge)[1]
    if len(places) > count * len(rows):  # equal logits at the edge: only the first of them are wanted
        ranked = [rank(of_image) for of_image in rows]
    else:
        among = places.reshape(len(rows), count)
        order = np.argsort(-np.take_along_axis(rows, among, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(among, order, axis=1).astype(np.int32)
        scores = np.take_along_axis(softmax(rows), best, axis=1)
        ranked = [Ranking(*of_image) for of_image in zip(best, scores, rows, strict=True)]
    left = iter(ranked)
    return [next(left) if good else None for good in finite]


def name_best(ranking: Ranking, labels: tuple[str, ...], k: int) -> list[Prediction]:
    """The `k` most likely labels, best first.

    Args:
        ranking: of one image.
        labels: C of them.
        k: from 0 to K.
    """
    pairs = zip(ranking.indices[:k].tolist(), ranking.scores[:k].tolist(), strict=True)
    return [Prediction(labels[index], index, score) for index, score in pairs]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax in double precision over the last axis, shifted so that nothing overflows: [..., C] to [..., C]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True).astype(np.float64))
    shares: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return shares
