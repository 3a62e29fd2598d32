"""What a request wants to have, and how it is written. `B` images, `C` classes, `N` patches of the longest image."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic_core import to_json

from service.errors import BadInference, NotOffered
from service.extras import ATTENTION, Extras
from service.predictions import MOST_RANKED, Ranking, softmax
from service.v2.body import NO_SHARED_MEMORY
from service.v2.documents import InferenceRequest, OutputName, RequestOutput

_NO_ATTENTION = "This model was exported without attention: export it again with --explain."
_NO_CLASSES = "`classification` is of `logits` and `probabilities`, not of `attention`."
_TWICE = "An output is named twice."
_CLASSIFICATION = f"`classification` is at most {MOST_RANKED}, or the number of classes if that is less."
_NO_LOGITS = (
    "This service has several processes, of which only one knows all logits: ask for the output `probabilities` with "
    f"`classification` up to {MOST_RANKED}, or have it run with --http-workers 1."
)


@dataclass(frozen=True, slots=True)
class Wish:
    """One output that is wanted: the whole tensor, or the best so many `classes` as strings if that is not 0."""

    name: str
    classes: int
    binary: bool


def offered(*, has_logits: bool, explain: bool = False) -> tuple[OutputName, ...]:
    """The names of the outputs that there are."""
    of_classes: tuple[OutputName, ...] = ("logits", "probabilities") if has_logits else ("probabilities",)
    return (*of_classes, "attention") if explain else of_classes


def read_wishes(request: InferenceRequest, classes: int, *, has_logits: bool, explain: bool = False) -> list[Wish]:
    """What is wanted, in the order in which it was asked for; by default all but attention, which costs more.

    Raises:
        BadInference: if it cannot be had.
    """
    default = [RequestOutput(name=name) for name in offered(has_logits=has_logits)]
    wishes = [_wish(each, request, classes) for each in request.outputs or default]
    if len({each.name for each in wishes}) < len(wishes):
        raise BadInference(_TWICE)
    if not explain and extras_of(wishes):
        raise NotOffered(_NO_ATTENTION)
    if not has_logits and any(_needs_logits(each, classes) for each in wishes):
        raise NotOffered(_NO_LOGITS)
    return wishes


def extras_of(wishes: Sequence[Wish]) -> Extras:
    """What the engine is asked for beside the logits."""
    return Extras.ATTENTION if any(each.name == ATTENTION for each in wishes) else Extras.NONE


def _wish(output: RequestOutput, request: InferenceRequest, classes: int) -> Wish:
    asked = output.parameters
    if asked.shared_memory_region is not None:
        raise NotOffered(NO_SHARED_MEMORY)
    if asked.classification and output.name == ATTENTION:
        raise BadInference(_NO_CLASSES)
    best = min(asked.classification, classes)
    if best > MOST_RANKED:
        raise BadInference(_CLASSIFICATION)
    binary = request.parameters.binary_data_output if asked.binary_data is None else asked.binary_data
    return Wish(output.name, best, binary)


def _needs_logits(wish: Wish, classes: int) -> bool:
    return wish.name == "logits" or (wish.name == "probabilities" and wish.classes == 0 and classes > MOST_RANKED)


def write_reply(
    head: dict[str, Any],
    wishes: Sequence[Wish],
    rankings: Sequence[Ranking],
    labels: tuple[str, ...],
    attentions: Sequence[NDArray[np.float32]] = (),
) -> Response:
    """The reply, with binary data behind the JSON where it is wanted."""
    blobs: list[bytes] = []
    outputs = [
        _strings(wish, rankings, labels, blobs)
        if wish.classes
        else _tensor(wish, _padded(attentions) if wish.name == ATTENTION else _rows(wish, rankings, labels), blobs)
        for wish in wishes
    ]
    document = to_json(head | {"outputs": outputs})
    if not blobs:
        return Response(document, media_type="application/json")
    length = {"Inference-Header-Content-Length": str(len(document))}
    return Response(b"".join([document, *blobs]), headers=length, media_type="application/octet-stream")


def _rows(wish: Wish, rankings: Sequence[Ranking], labels: tuple[str, ...]) -> NDArray[np.float32]:
    """[B, C]."""
    return np.stack([_values(wish.name, each, len(labels)) for each in rankings])


def _padded(attentions: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """[B, N], with 0 behind the patches of shorter images."""
    padded = np.zeros((len(attentions), max(map(len, attentions))), np.float32)
    for row, shares in zip(padded, attentions, strict=True):
        row[: len(shares)] = shares
    return padded


def _tensor(wish: Wish, values: NDArray[np.float32], blobs: list[bytes]) -> dict[str, Any]:
    head = {"name": wish.name, "datatype": "FP32", "shape": list(values.shape)}
    if wish.binary:
        return head | _behind(values.astype("<f4").tobytes(), blobs)
    return head | {"data": values.ravel().tolist()}


def _strings(wish: Wish, rankings: Sequence[Ranking], labels: tuple[str, ...], blobs: list[bytes]) -> dict[str, Any]:
    strings = [text for each in rankings for text in _best(wish, each, labels)]
    head = {"name": wish.name, "datatype": "BYTES", "shape": [len(rankings), wish.classes]}
    if wish.binary:
        encoded = [text.encode() for text in strings]
        return head | _behind(b"".join(len(each).to_bytes(4, "little") + each for each in encoded), blobs)
    return head | {"data": strings}


def _behind(blob: bytes, blobs: list[bytes]) -> dict[str, Any]:
    blobs.append(blob)
    return {"parameters": {"binary_data_size": len(blob)}}


def _values(name: str, ranking: Ranking, classes: int) -> NDArray[np.float32]:
    """float32 [C]."""
    if ranking.logits is None:
        values = np.zeros(classes, np.float32)
        values[ranking.indices] = ranking.scores
        return values
    if name == "logits" or classes == 0:
        return ranking.logits
    return softmax(ranking.logits).astype(np.float32)


def _best(wish: Wish, ranking: Ranking, labels: tuple[str, ...]) -> list[str]:
    """As Triton writes them: the value with six decimals, the index, the label."""
    of_logits = wish.name == "logits" and ranking.logits is not None
    scores = ranking.logits[ranking.indices] if of_logits else ranking.scores  # type: ignore[index]
    pairs = zip(scores.tolist(), ranking.indices.tolist(), strict=True)
    return [f"{score:f}:{index}:{labels[index]}" for score, index in islice(pairs, wish.classes)]
