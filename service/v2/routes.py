"""The routes under /v2. A model is addressed with its version or, for the newest one, without."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from service.errors import NotOffered
from service.lifecycle import Lifecycle
from service.models import Models
from service.problems import InferenceProblem
from service.v2.documents import InferenceRequest
from service.v2.inference import Inference
from service.v2.metadata import (
    IndexEntry,
    InferenceReply,
    ModelMetadata,
    ServerMetadata,
    model_metadata,
    repository_index,
    server_metadata,
)

_PROBE_METHODS = ["GET", "HEAD"]
_ANY_METHOD = ["GET", "POST"]
_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"
_MISSING = "This extension is not offered; GET /v2 names those that are."
# Triton's: https://github.com/triton-inference-server/server/tree/main/docs/protocol
_NOT_OFFERED = (
    "/v2/systemsharedmemory/{rest:path}",
    "/v2/cudasharedmemory/{rest:path}",
    "/v2/repository/models/{name}/load",
    "/v2/repository/models/{name}/unload",
    "/v2/logging",
    "/v2/trace/setting",
    *(
        f"{model}/{extension}"
        for model in (_MODEL, _VERSION)
        for extension in ("config", "stats", "trace/setting", "generate", "generate_stream")
    ),
)
_STATUSES = {
    400: "not as the protocol or the model has it, or an extension that is not offered",
    401: "no valid API key, where the service has keys",
    403: "a key for something else",
    404: "there is no such model",
    408: "the body came too slowly",
    413: "the body is too large",
    414: "the address is too long",
    415: "the body is compressed, or an image is of a format that is not accepted",
    422: "an image cannot be decoded or is too large",
    429: "overloaded: try again after `Retry-After` seconds",
    431: "the headers are too large",
    500: "the service failed",
    503: "starting, stopping or failed: try again after `Retry-After` seconds",
    504: "the deadline passed",
}
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": _STATUSES[status], "model": InferenceProblem} for status in statuses}


def _inlined(part: Any, named: dict[str, Any]) -> Any:
    """A JSON schema without references, which would point elsewhere in the OpenAPI document."""
    if isinstance(part, list):
        return [_inlined(each, named) for each in part]
    if not isinstance(part, dict):
        return part
    meant = named[part["$ref"].rpartition("/")[2]] if "$ref" in part else {}
    whole = meant | {name: each for name, each in part.items() if name not in {"$ref", "$defs"}}
    return {name: _inlined(each, named) for name, each in whole.items()}


def _body() -> dict[str, Any]:
    schema = InferenceRequest.model_json_schema()
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "required": False,
        "description": "bytes of JSON before the binary data; 0: there is none, the body is one image",
        "schema": {"type": "integer", "minimum": 0},
    }
    content = {"application/json": {"schema": _inlined(schema, schema["$defs"])}} | _BINARY
    return {"parameters": [length], "requestBody": {"required": True, "content": content}}


def inference_router(models: Models, lifecycle: Lifecycle, inference: Inference) -> APIRouter:
    """All routes under /v2."""
    router = APIRouter()
    _add_service(router, models, lifecycle)
    for path, read_name in ((_MODEL, _newest), (_VERSION, _exactly)):
        _add_metadata(router, path, read_name, models, lifecycle)
        _add_infer(router, path, read_name, inference)
    for path in _NOT_OFFERED:
        router.add_api_route(path, _refuse, methods=_ANY_METHOD, include_in_schema=False)
    return router


async def _newest(name: str) -> str:
    return name


async def _exactly(name: str, version: str) -> str:
    return f"{name}@{version}"


async def _refuse() -> Response:
    raise NotOffered(_MISSING)


_ReadName = Callable[..., Awaitable[str]]


def _add_service(router: APIRouter, models: Models, lifecycle: Lifecycle) -> None:
    @router.api_route("/v2/health/live", methods=_PROBE_METHODS, include_in_schema=False)
    async def live() -> dict[str, bool]:
        """As /livez."""
        return {"live": True}

    @router.api_route("/v2/health/ready", methods=_PROBE_METHODS, include_in_schema=False)
    async def ready() -> dict[str, bool]:
        """As /readyz."""
        if unready := lifecycle.unready:
            raise unready
        return {"ready": True}

    @router.get("/v2", response_model=ServerMetadata)
    async def server() -> ServerMetadata:
        """What this service is, and which extensions of the protocol it has."""
        return server_metadata()

    @router.post("/v2/repository/index", response_model=list[IndexEntry])
    async def index() -> list[IndexEntry]:
        """What is served. The body is not read: `{"ready": true}` would change nothing."""
        return repository_index(models)


def _add_metadata(router: APIRouter, path: str, read_name: _ReadName, models: Models, lifecycle: Lifecycle) -> None:
    @router.get(path, response_model=ModelMetadata, responses=_problems(404))
    async def metadata(name: Annotated[str, Depends(read_name)]) -> ModelMetadata:
        """Inputs and outputs of a model."""
        return model_metadata(models.choose(name), models)

    @router.get(f"{path}/ready", responses=_problems(404, 503))
    async def ready(name: Annotated[str, Depends(read_name)]) -> dict[str, Any]:
        """Whether a model answers requests."""
        served = models.choose(name)
        if unready := lifecycle.unready:
            raise unready
        return {"name": served.manifest.name, "ready": True}


def _add_infer(router: APIRouter, path: str, read_name: _ReadName, inference: Inference) -> None:
    responses = _problems(*_STATUSES) | {200: {"content": _BINARY}}

    @router.post(f"{path}/infer", response_model=InferenceReply, responses=responses, openapi_extra=_body())
    async def infer(request: Request, name: Annotated[str, Depends(read_name)]) -> Response:
        """Classify images, or patches that are cut already."""
        return await inference(request, name)
