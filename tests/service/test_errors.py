import pytest

from model import headers
from service import errors
from service.errors import RequestError, from_image_error
from service.problems import problem_response

# The error contract: clients rely on these pairs.
CONTRACT = {
    ("bad_request", 400),
    ("bad_multipart", 400),
    ("bad_inference", 400),
    ("not_offered", 400),
    ("unauthorized", 401),
    ("forbidden", 403),
    ("not_found", 404),
    ("method_not_allowed", 405),
    ("not_acceptable", 406),
    ("upload_timeout", 408),
    ("model_refused", 409),
    ("explain_not_available", 409),
    ("body_too_large", 413),
    ("address_too_long", 414),
    ("unsupported_media_type", 415),
    ("invalid_image", 422),
    ("image_too_large", 422),
    ("invalid_parameter", 422),
    ("overloaded", 429),
    ("rate_limited", 429),
    ("headers_too_large", 431),
    ("client_closed", 499),
    ("internal", 500),
    ("not_ready", 503),
    ("draining", 503),
    ("model_replaced", 503),
    ("device_lost", 503),
    ("deadline_exceeded", 504),
}


def leaves(kind: type[RequestError]) -> set[type[RequestError]]:
    return {kind} | {leaf for below in kind.__subclasses__() for leaf in leaves(below)}


def test_codes_and_statuses_are_the_contract() -> None:
    concrete = leaves(RequestError) - {RequestError, errors.Unavailable}
    assert {(kind.code, kind.status) for kind in concrete} == CONTRACT
    assert len(concrete) == len(CONTRACT)


def test_the_tree_is_drawn_in_the_docstring() -> None:
    for kind in leaves(RequestError):
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("error", [errors.Draining(), errors.NotReady(), errors.Overloaded(7), errors.RateLimited(7)])
def test_what_may_be_retried_says_when(error: RequestError) -> None:
    assert problem_response(error, "id").headers["retry-after"] == str(error.retry_after_s)


def test_what_must_not_be_retried_says_nothing() -> None:
    assert "retry-after" not in problem_response(errors.InvalidImage(), "id").headers


@pytest.mark.parametrize("kind", [headers.InvalidImage, headers.ImageTooLarge, headers.UnsupportedFormat])
def test_image_errors_keep_their_code_and_lose_their_message(kind: type[headers.ImageError]) -> None:
    error = from_image_error(kind("secret"), headers.ImageLimits())
    assert error.code == kind.code
    assert "secret" not in error.detail
    assert "{" not in error.detail
