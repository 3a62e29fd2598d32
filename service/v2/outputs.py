"""What a request wants to have, and how it is written. `B` images, `C` classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic_core import to_json

from service.errors import BadInference, NotOffered
from service.predictions import MOST_RANKED, Ranking, softmax
from service.v2.body import NO_SHARED_MEMORY
from service.v2.documents import InferenceRequest, OutputName, RequestOutput

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


def offered(*, has_logits: bool) -> tuple[OutputName, ...]:
    """The names of the outputs that there are."""
    return ("logits", "probabilities") if has_logits else ("probabilities",)


def read_wishes(request: InferenceRequest, classes: int, *, has_logits: bool) -> list[Wish]:
    """What is wanted, in the order in which it was asked for.

    Raises:
        BadInference: if it cannot be had.
    """
    default = [RequestOutput(name=name) for name in offered(has_logits=has_logits)]
    wishes = [_wish(each, request, classes) for each in request.outputs or default]
    if len({each.name for each in wishes}) < len(wishes):
        raise BadInference(_TWICE)
    if not has_logits and any(_needs_logits(each, classes) for each in wishes):
        raise NotOffered(_NO_LOGITS)
    return wishes


def _wish(output: RequestOutput, request: InferenceRequest, classes: int) -> Wish:
    asked = output.parameters
    if asked.shared_memory_region is not None:
        raise NotOffered(NO_SHARED_MEMORY)
    best = min(asked.classification, classes)
    if best > MOST_RANKED:
        raise BadInference(_CLASSIFICATION)
    binary = request.parameters.binary_data_output if asked.binary_data is None else asked.binary_data
    return Wish(output.name, best, binary)


def _needs_logits(wish: Wish, classes: int) -> bool:
    return wish.name == "logits" or (wish.classes == 0 and classes > MOST_RANKED)


def write_reply(
    head: dict[str, Any], wishes: Sequence[Wish], rankings: Sequence[Ranking], labels: tuple[str, ...]
) -> Response:
    """The reply, with binary data behind the JSON where it is wanted."""
    blobs: list[bytes] = []
    outputs = [
        _strings(wish, rankings, labels, blobs) if wish.classes else _tensor(wish, rankings, labels, blobs)
        for wish in wishes
    ]
    document = to_json(head | {"outputs": outputs})
    if not blobs:
        return Response(document, media_type="application/json")
    length = {"Inference-Header-Content-Length": str(len(document))}
    return Response(b"".join([document, *blobs]), headers=length, media_type="application/octet-stream")


def _tensor(wish: Wish, rankings: Sequence[Ranking], labels: tuple[str, ...], blobs: list[bytes]) -> dict[str, Any]:
    values = np.stack([_values(wish.name, each, len(labels)) for each in rankings])
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
