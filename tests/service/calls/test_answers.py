import json
import pickle
from dataclasses import fields
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from service import predictions, replies
from service.calls.answers import (
    Classification,
    Embedding,
    Explanation,
    ModelInfo,
    ModelName,
    Outcome,
    Prediction,
    read_answer,
    read_classification,
    read_embedding,
    read_explanation,
    retry_after_s,
)
from service.calls.failures import (
    AccessDenied,
    Busy,
    ImageRefused,
    NotUnderstood,
    ServiceError,
    TooLate,
    Unavailable,
    UnknownModel,
)
from service.calls.questions import EmbedOptions, Options
from service.classify import ClassifyQuery
from service.embed import EmbedQuery

DOCUMENT: dict[str, Any] = {
    "model": {"name": "m", "version": "1", "digest": "sha256:0"},
    "results": [
        {
            "predictions": [{"label": "red", "index": 0, "score": 0.5}],
            "patches": 6,
            "grid": [2, 3],
            "width": 12,
            "height": 8,
            "format": "PNG",
            "degraded": False,
        }
    ],
    "timing_ms": {"total": 1.5},
    "request_id": "id",
}


def read(status: int, body: object, **headers: str) -> Classification:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(status, headers, content, read_classification, now_s=0.0)


def test_a_reply_becomes_a_value() -> None:
    answer = read(200, DOCUMENT)
    assert answer == Classification(
        (Prediction("red", 0, 0.5),),
        6,
        (2, 3),
        12,
        8,
        "PNG",
        False,
        ModelName("m", "1", "sha256:0"),
        {"total": 1.5},
        "id",
    )
    assert answer.best.label == "red"
    assert hash(answer.best) == hash(Prediction("red", 0, 0.5))


def test_explanations_and_features_become_values() -> None:
    [result] = DOCUMENT["results"]
    more = result | {"attention": [[0.5, 0, 0], [0.25, 0.25, 0]], "region": [0, 0, 12, 8.5], "embedding": [1, -0.5]}
    document = DOCUMENT | {"results": [more]}
    explained = read_answer(200, {}, json.dumps(document).encode(), read_explanation, 0.0)
    assert (explained.attention, explained.region) == (((0.5, 0, 0), (0.25, 0.25, 0)), (0, 0, 12, 8.5))
    plain = read(200, DOCUMENT)
    assert all(getattr(explained, each.name) == getattr(plain, each.name) for each in fields(Classification))
    embedded = read_answer(200, {}, json.dumps(document).encode(), read_embedding, 0.0)
    assert (embedded.embedding, embedded.grid, embedded.model.name) == ((1, -0.5), (2, 3), "m")
    with pytest.raises(NotUnderstood):
        read_answer(200, {}, json.dumps(DOCUMENT).encode(), read_explanation, 0.0)


def test_what_a_newer_service_adds_is_ignored() -> None:
    newer = json.loads(
        json.dumps(DOCUMENT).replace('"label"', '"synonyms": [], "label"').replace('"name"', '"x": 1, "name"')
    )
    assert read(200, newer | {"trailer": 1}) == read(200, DOCUMENT)


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"[]", b"null", b"{}", json.dumps(DOCUMENT | {"results": []}).encode(), b'{"results": 3}']
)
def test_a_reply_of_something_else_is_not_understood(body: bytes) -> None:
    with pytest.raises(NotUnderstood, match="check the address"):
        read(200, body)


@pytest.mark.parametrize("status", [204, 301, 307])
def test_neither_is_another_kind_of_success_or_a_redirect(status: int) -> None:
    with pytest.raises(NotUnderstood):
        read(status, b"")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "bad_request", ServiceError),
        (401, "unauthorized", AccessDenied),
        (403, "forbidden", AccessDenied),
        (404, "not_found", UnknownModel),
        (413, "body_too_large", ImageRefused),
        (415, "unsupported_media_type", ImageRefused),
        (422, "invalid_image", ImageRefused),
        (422, "invalid_parameter", ServiceError),
        (429, "rate_limited", Busy),
        (500, "internal", ServiceError),
        (503, "draining", Unavailable),
        (504, "deadline_exceeded", TooLate),
    ],
)
def test_a_refusal_has_its_class_and_says_everything(status: int, code: str, kind: type[ServiceError]) -> None:
    problem = {"status": status, "code": code, "detail": "A sentence.", "request_id": "id"}
    with pytest.raises(ServiceError) as raised:
        read(status, problem, **{"retry-after": "7"})
    error = raised.value
    assert type(error) is kind
    assert (error.status, error.code, error.detail, error.request_id) == (status, code, "A sentence.", "id")
    assert error.retry_after_s == 7
    assert str(error) == f"{status} {code}: A sentence."


@pytest.mark.parametrize("body", [b"<h1>Bad gateway</h1>", b"[1]", b""])
def test_a_refusal_of_a_proxy_has_its_status_at_least(body: bytes) -> None:
    with pytest.raises(ServiceError) as raised:
        read(502, body)
    assert (raised.value.status, raised.value.detail, raised.value.request_id) == (502, "Bad Gateway", None)
    with pytest.raises(ServiceError, match="599 unknown: no reason given"):
        read(599, body)


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    later = format_datetime(now.replace(second=9), usegmt=True)
    assert retry_after_s("12", 0) == 12
    assert retry_after_s(later, now.timestamp()) == 9
    assert retry_after_s(later, now.timestamp() + 60) == 0
    assert [retry_after_s(value, 0) for value in (None, "", "soon", "-1", "1.5", "²")] == [None] * 6


def test_errors_cross_processes() -> None:
    error = Busy(429, "overloaded", "Too much.", "id", 2.0)
    error.attempts = 3
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is Busy
    assert (copy.status, copy.retry_after_s, copy.attempts, str(copy)) == (429, 2.0, 3, str(error))


def test_an_outcome_gives_its_answer_or_raises_its_error() -> None:
    answer, error = read(200, DOCUMENT), NotUnderstood("x")
    assert Outcome(0, "a", answer).get() is answer
    with pytest.raises(NotUnderstood):
        Outcome(0, "a", error=error).get()


def test_both_ends_name_the_same_fields() -> None:
    assert set(ModelInfo.__slots__) == set(replies.ModelSummary.model_fields)
    assert set(ModelName.__slots__) == set(replies.ModelName.model_fields)
    assert Prediction.__slots__ == tuple(field.name for field in fields(predictions.Prediction))
    around = {field.name for field in fields(replies.ClassifyReply)} - {"results"}
    for ours, theirs in (
        (Classification, replies.Classified),
        (Explanation, replies.Explained),
        (Embedding, replies.Embedded),
    ):
        assert {field.name for field in fields(ours)} == {field.name for field in fields(theirs)} | around
    assert set(Options.__annotations__) == set(ClassifyQuery.model_fields)
    assert set(EmbedOptions.__annotations__) == set(EmbedQuery.model_fields)
