"""What the service answers, as values; `service.replies` is the other end, and a test holds them together.

Fields that a newer service adds are ignored.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

from service.calls.failures import CallError, NotUnderstood, ServiceError, kind_of

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label: its place among the logits, and its share of the softmax, 0 to 1."""

    label: str
    index: int
    score: float


@dataclass(frozen=True, slots=True)
class ModelName:
    """Which model answered; `digest` is `sha256:` and the SHA-256 of its file."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one image.

    Attributes:
        predictions: best first; empty for a model without labels.
        patches: what the image was cut into: its cost.
        grid: rows and columns of patches.
        width, height: upright, pixels.
        format: of the file that was sent.
        degraded: fewer patches than asked for, because of load.
        model: that answered.
        timing_ms: milliseconds by stage of the service.
        request_id: under which the service's log has it.
    """

    predictions: tuple[Prediction, ...]
    patches: int
    grid: tuple[int, int]
    width: int
    height: int
    format: str
    degraded: bool
    model: ModelName
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    request_id: str = ""

    @property
    def best(self) -> Prediction:
        """The most likely label.

        Raises:
            IndexError: if the model has no labels.
        """
        return self.predictions[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Classification):
    """The answer for one image, and where the model looks.

    Attributes:
        attention: rows and columns of `grid`: the share of each patch, in sum 1.
        region: left, top, right, bottom of what the patches show, pixels of the upright image.
    """

    attention: tuple[tuple[float, ...], ...]
    region: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Embedding:
    """The features of one image.

    Attributes:
        embedding: of length 1 unless `normalize=False` was asked for.
        the others: as `Classification` has them.
    """

    embedding: tuple[float, ...]
    patches: int
    grid: tuple[int, int]
    width: int
    height: int
    format: str
    degraded: bool
    model: ModelName
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image of many: a classification, or an error.

    Attributes:
        place: among the images that were given, from 0.
        name: the path, or the type of what was given.
        classification: None if there is an error.
        error: None if there is a classification.
    """

    place: int
    name: str
    classification: Classification | None = None
    error: CallError | None = None

    def get(self) -> Classification:
        """The classification.

        Raises:
            CallError: the error, if that is what became of it.
        """
        if self.classification is None:
            raise self.error or CallError("there is no answer")
        return self.classification


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model of the service.

    Attributes:
        name, version, digest, description, state: of the model.
        provider: what runs it, such as `cpu`.
        classes: how many labels.
        max_patches: the most that one image may have.
        newest: answers to NAME alone; every version answers to NAME@VERSION.
        default: answers calls that name no model.
    """

    name: str
    version: str
    digest: str
    description: str
    state: str
    provider: str
    classes: int
    max_patches: int
    newest: bool
    default: bool


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, read: Callable[[Any], AnswerT], now_s: float
) -> AnswerT:
    """The answer in a reply.

    Args:
        status: of HTTP.
        headers: names in any case that the mapping finds in lower case.
        body: all of it.
        read: from the JSON document to the answer.
        now_s: the wall clock, for a `Retry-After` that is a date, seconds.

    Raises:
        ServiceError: if it is a refusal.
        NotUnderstood: if it is not of patchserve.
    """
    if not 200 <= status < 300:
        raise _refusal(status, headers, body, now_s)
    try:
        return read(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise NotUnderstood(
            f"{status} with a body that is not patchserve's ({type(error).__name__}): check the address"
        ) from None


def read_classification(document: Any) -> Classification:
    """The reply to one image."""
    return Classification(_predictions(document), **_facts(document))


def read_explanation(document: Any) -> Explanation:
    """The reply to one image of which an explanation was wanted."""
    [result] = document["results"]
    left, top, right, bottom = map(float, result["region"])
    return Explanation(
        predictions=_predictions(document),
        **_facts(document),
        attention=tuple(tuple(map(float, row)) for row in result["attention"]),
        region=(left, top, right, bottom),
    )


def read_embedding(document: Any) -> Embedding:
    """The reply to one image of which the features were wanted."""
    [result] = document["results"]
    return Embedding(tuple(map(float, result["embedding"])), **_facts(document))


def _predictions(document: Any) -> tuple[Prediction, ...]:
    [result] = document["results"]
    return tuple(_only(Prediction, each) for each in result["predictions"])


def _facts(document: Any) -> dict[str, Any]:
    """What all replies to one image have."""
    [result] = document["results"]
    rows, columns = result["grid"]
    return {name: result[name] for name in ("patches", "width", "height", "format", "degraded")} | {
        "grid": (rows, columns),
        "model": _only(ModelName, document["model"]),
        "timing_ms": dict(document["timing_ms"]),
        "request_id": document["request_id"],
    }


def read_models(document: Any) -> list[ModelInfo]:
    """The reply of /models."""
    return [_only(ModelInfo, each) for each in document["models"]]


def read_nothing(_: Any) -> None:
    """A reply of which the status says everything."""


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """`Retry-After` as seconds from now: a number or a date (RFC 9110, 10.2.3); None if it is neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except ValueError:
        return None


def _refusal(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> ServiceError | NotUnderstood:
    problem = _problem(body)
    if status < 400:
        return NotUnderstood(f"{status} instead of an answer: check the address, redirects are not followed")
    code = str(problem.get("code", "unknown"))  # a proxy's reply has none
    detail = str(problem.get("detail") or _phrase(status))
    wait_s = retry_after_s(headers.get("retry-after"), now_s)
    request_id = problem.get("request_id")
    return kind_of(status, code)(status, code, detail, None if request_id is None else str(request_id), wait_s)


def _problem(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"


def _only(kind: type[AnswerT], document: Mapping[str, Any]) -> AnswerT:
    """A dataclass from the fields of a document that it knows."""
    return kind(**{each.name: document[each.name] for each in fields(kind)})  # type: ignore[arg-type]
