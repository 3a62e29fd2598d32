"""The HTTP floor of errors: RFC 9457 problem documents, and under /v2 those of the Open Inference Protocol.

Nothing a client sent is in them.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.errors import (
    BadRequest,
    Internal,
    InvalidParameter,
    MethodNotAllowed,
    NotFound,
    RequestError,
    Unauthorized,
)

MEDIA_TYPE = "application/problem+json"
_BY_STATUS: dict[int, Callable[[], RequestError]] = {404: NotFound, 405: MethodNotAllowed, 400: BadRequest}


class Problem(BaseModel):
    """Why there is no answer."""

    type: str = Field(default="about:blank", description="always about:blank: `code` tells the kind")
    title: str = Field(description="short name of the status")
    status: int = Field(description="HTTP status")
    code: str = Field(description="stable name of the kind of problem")
    detail: str = Field(description="one fixed sentence per code")


class ProblemReply(Problem):
    """A problem that is the whole reply."""

    request_id: str


class InferenceProblem(BaseModel):
    """Why there is no answer, as the Open Inference Protocol says it."""

    error: str = Field(description="one sentence")


def speaks_v2(path: str) -> bool:
    """Whether an address belongs to the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def problem(description: str) -> dict[str, Any]:
    """How the OpenAPI document describes a reply that is a problem."""
    return {"description": description, "content": {MEDIA_TYPE: {"schema": ProblemReply.model_json_schema()}}}


def inference_problem(description: str) -> dict[str, Any]:
    """The same under /v2."""
    return {
        "description": description,
        "content": {"application/json": {"schema": InferenceProblem.model_json_schema()}},
    }


def describe(error: RequestError) -> Problem:
    """The document without a request id, as it stands among the results of several uploads."""
    return Problem(title=error.title, status=error.status, code=error.code, detail=error.detail)


def problem_response(error: RequestError, request_id: str) -> Response:
    """The reply for an error, with `Retry-After` where a retry helps."""
    document = ProblemReply(**describe(error).model_dump(), request_id=request_id)
    return Response(document.model_dump_json(), error.status, _headers_of(error), MEDIA_TYPE)


def refusal_response(path: str, error: RequestError, request_id: str) -> Response:
    """`problem_response` in the words of the protocol that is spoken at this path."""
    if not speaks_v2(path):
        return problem_response(error, request_id)
    document = InferenceProblem(error=error.detail)
    return Response(document.model_dump_json(), error.status, _headers_of(error), "application/json")


def _headers_of(error: RequestError) -> dict[str, str]:
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return headers | ({"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else {})


def refuse(request: Request, error: RequestError) -> Response:
    """The reply for an error, noted for the request's line in the log and its place in the metrics."""
    request.state.problem = error.code
    return refusal_response(request.scope["path"], error, request.state.request_id)


def install_handlers(app: FastAPI) -> None:
    """Turn our errors, and the framework's own, into documents."""
    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        RequestError: _on_request_error,
        RequestValidationError: _on_invalid_parameter,
        HTTPException: _on_http_exception,
        Exception: _on_bug,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _on_request_error(request: Request, error: RequestError) -> Response:
    return refuse(request, error)


async def _on_invalid_parameter(request: Request, _: RequestValidationError) -> Response:
    return refuse(request, InvalidParameter())


async def _on_http_exception(request: Request, exception: HTTPException) -> Response:
    response = refuse(request, _BY_STATUS.get(exception.status_code, Internal)())
    if allowed := (exception.headers or {}).get("Allow"):
        response.headers["Allow"] = allowed
    return response


async def _on_bug(request: Request, _: Exception) -> Response:
    return refuse(request, Internal())
