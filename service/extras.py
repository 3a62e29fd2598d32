"""What a caller may want of an image beside its best classes. `B` images, `N` patches, `C` classes, `D` features.

One batch serves whoever is in it, so it asks the engine for what any of its images wants.
"""

import enum
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_FEATURES = 4096  # D: what the memory that processes share has room for


class Extras(enum.IntFlag):
    """Any of these; the numbers cross from process to process."""

    NONE = 0
    EMBEDDING = 1  # the pooled features before the head
    ATTENTION = 2  # the rollout, of models that were exported with it


ATTENTION = "attention"  # the name of the graph's output
_OUTPUTS = {Extras.EMBEDDING: "embedding", Extras.ATTENTION: ATTENTION}


class Answers(NamedTuple):
    """Of a batch: float32 [B, C], [B, D] and [B, N]; None for what nobody wanted."""

    logits: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None = None
    attentions: NDArray[np.float32] | None = None


class Found(NamedTuple):
    """Of one image: float32 [D], and [N] of its own patches; None for what was not wanted."""

    embedding: NDArray[np.float32] | None = None
    attention: NDArray[np.float32] | None = None

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers."""
        return all(np.isfinite(each).all() for each in self if each is not None)


NOTHING = Found()


def union(wanted: Iterable[Extras]) -> Extras:
    """What any of them wants."""
    return reduce(or_, wanted, Extras.NONE)


def output_names(extras: Extras) -> list[str]:
    """The outputs of the graph that a run fetches."""
    return ["logits", *(name for extra, name in _OUTPUTS.items() if extra in extras)]


def answers_of(extras: Extras, arrays: Iterable[NDArray[np.float32]]) -> Answers:
    """The values of `output_names`."""
    found = dict(zip(output_names(extras), arrays, strict=True))
    return Answers(found["logits"], found.get("embedding"), found.get("attention"))


def found_in(answers: Answers | None, place: int, patches: int, extras: Extras) -> Found:
    """What one image wants of the answers of its batch, as copies: the arrays of the batch need not stay for it."""
    if answers is None or not extras:
        return NOTHING
    embeddings = answers.embeddings if Extras.EMBEDDING in extras else None
    attentions = answers.attentions if Extras.ATTENTION in extras else None
    return Found(
        None if embeddings is None else embeddings[place].copy(),
        None if attentions is None else attentions[place, :patches].copy(),
    )
