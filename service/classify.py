"""POST /classify: from the request to the reply. `service.embed` and `service.explain` answer otherwise, no more."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from model.manifest import Manifest
from service.accounts import Accounts, Upload
from service.admission import Admission
from service.disconnects import cancel_when_gone
from service.errors import InvalidParameter, RequestError
from service.extras import Extras
from service.lifecycle import Lifecycle
from service.models import Models, Served
from service.pipeline import Job, Wanted
from service.predictions import MOST_RANKED
from service.problems import problem, refuse
from service.replies import ClassifyReply, Timing, result_of
from service.settings import Settings
from service.tracking import origin_of
from service.uploads import body_headers, read_uploads

_PATH = "/classify"
_BODY_HEADERS = frozenset({b"content-type", b"content-length", b"content-encoding"})
_DEFAULT_K = 5


def _digits(value: Any) -> int:
    """Plain ASCII digits only: no sign, no exponent, no underscore, none of Unicode's other digits."""
    if not isinstance(value, str) or not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError("not a whole number")
    return int(value)


def _truth(value: Any) -> bool:
    if value not in {"true", "false"}:
        raise ValueError("neither true nor false")
    return bool(value == "true")


_Whole = Annotated[int, Field(ge=1), BeforeValidator(_digits)]
_K = Annotated[int, Field(ge=1, le=MOST_RANKED), BeforeValidator(_digits)]


YesNo = Annotated[bool, BeforeValidator(_truth)]


class UploadQuery(BaseModel):
    """Query parameters of everything that takes images; an unknown one is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(
        default=None, description="NAME or NAME@VERSION of /models; default: the service's default model"
    )
    max_patches: _Whole | None = Field(
        default=None, description="patch budget per image: fewer is faster and less accurate; the model's own bounds it"
    )
    timeout_ms: _Whole | None = Field(default=None, description="deadline from the end of the upload, milliseconds")
    allow_degraded: YesNo = Field(
        default=True, description="false: never fewer patches than asked for; under load such a request waits longer"
    )

    def labels_of(self, classes: int) -> int:
        """How many labels of so many."""
        return 0


class ClassifyQuery(UploadQuery):
    """Those of whoever wants labels."""

    k: _K | None = Field(default=None, description="labels per image, at most the model's; default 5")

    def labels_of(self, classes: int) -> int:
        """How many labels of so many.

        Raises:
            InvalidParameter: if there are fewer.
        """
        if self.k is not None and self.k > classes:
            raise InvalidParameter
        return self.k or min(_DEFAULT_K, classes)


_NO_QUERY = ClassifyQuery()

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "description": "one part named `file` per image; other small parts are ignored",
                        }
                    },
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: problem(text)
    for status, text in {
        400: "`bad_request`, `bad_multipart`",
        401: "`unauthorized`: no valid API key, where the service has keys",
        403: "`forbidden`: a key for something else",
        404: "`not_found`: there is no such model",
        408: "`upload_timeout`",
        413: "`body_too_large`",
        414: "`address_too_long`",
        415: "`unsupported_media_type`",
        422: "`invalid_image`, `image_too_large`, `invalid_parameter`",
        429: "`overloaded`, `rate_limited`: try again after `Retry-After` seconds",
        431: "`headers_too_large`",
        500: "`internal`",
        503: "`not_ready`, `draining`, `model_replaced`, `device_lost`: try again after `Retry-After` seconds",
        504: "`deadline_exceeded`",
    }.items()
}


QueryT = TypeVar("QueryT", bound=UploadQuery)


@dataclass(frozen=True, slots=True, eq=False)
class Answered(Generic[QueryT]):
    """A request whose images have been through the engine, each with its answer or its error."""

    request: Request
    query: QueryT
    served: Served
    uploads: Sequence[bytes]
    upload: Upload
    wanted: Wanted
    jobs: list[Job]


class Answering(Generic[QueryT]):
    """The parts that one request with images passes through; subclasses say what they want, and what they reply.

    Args:
        settings: the limits.
        models: to choose from.
        admission: the gate.
        lifecycle: whether anybody is served.
        accounts: told what came of it.
        clock: monotonic, seconds.
    """

    extras: ClassVar[Extras] = Extras.NONE  # of each image, beside its best classes

    def __init__(
        self,
        settings: Settings,
        models: Models,
        admission: Admission,
        lifecycle: Lifecycle,
        accounts: Accounts,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._models = models
        self._admission = admission
        self._lifecycle = lifecycle
        self._accounts = accounts
        self._clock = clock

    async def __call__(self, request: Request, query: QueryT) -> Response:
        """Answer one request.

        Raises:
            RequestError: what stands in the way of the whole request; that of the only upload is the reply.
        """
        if refusal := self._lifecycle.refusal:
            raise refusal
        with self._models.choose(query.model) as served:
            return await self._answer(request, query, served)

    async def _answer(self, request: Request, query: QueryT, served: Served) -> Response:
        k, max_patches, timeout_s = self._check(query, served.manifest)
        self._admission.check_open(self._clock(), timeout_s)
        with self._admission.hold_upload() as memory:
            uploads = await read_uploads(
                body_headers(request.scope, _BODY_HEADERS),
                request.receive,
                self._settings,
                self._settings.formats,
                memory,
                self._clock,
            )
            queued = self._admission.ledger.all_queue_patches
            upload = Upload(self._clock(), memory.taken, queued)
            with cancel_when_gone(request.receive):
                self._check_uploads(request, uploads)
                wanted = Wanted(
                    k, max_patches, upload.ended_s + timeout_s, query.allow_degraded, self.extras, origin_of(request)
                )
                jobs = await served.pipeline.classify(uploads, wanted)
                if len(jobs) == 1 and jobs[0].error is not None:
                    self._accounts.close(request, jobs, upload)
                    return refuse(request, jobs[0].error)  # raised, it would hold this frame and with it the patches
                return await self._reply(Answered(request, query, served, uploads, upload, wanted, jobs))

    def _check(self, query: QueryT, manifest: Manifest) -> tuple[int, int, float]:
        """Labels, patch budget and timeout in seconds, within what this model and this service allow."""
        k = query.labels_of(len(manifest.labels))
        timeout_ms = self._settings.default_timeout_ms if query.timeout_ms is None else query.timeout_ms
        if timeout_ms > self._settings.max_timeout_ms:
            raise InvalidParameter
        own = manifest.preprocessing.max_patches
        return k, min(query.max_patches or own, own), timeout_ms / 1000

    def _check_uploads(self, request: Request, uploads: Sequence[bytes]) -> None:
        """Refuse what was read, before it is worked on."""

    async def _reply(self, done: Answered[QueryT]) -> Response:
        """The reply, within the deadline of the request."""
        raise NotImplementedError

    def _close(self, done: Answered[QueryT]) -> Timing:
        """How long the stages took, told to whoever keeps accounts as well; there will be a reply."""
        timing = self._accounts.close(done.request, done.jobs, done.upload)
        self._accounts.answer(done.request, done.jobs, timing)
        return timing


class Classifier(Answering[ClassifyQuery]):
    """Answers with labels."""

    async def _reply(self, done: Answered[ClassifyQuery]) -> Response:
        reply = ClassifyReply(
            model=done.served.name,
            results=[result_of(job) for job in done.jobs],
            timing_ms=self._close(done),
            request_id=done.request.scope["state"]["request_id"],
        )
        return Response(reply.to_json(), media_type="application/json")


class ShortWay:
    """ASGI: `POST /classify` goes straight to the classifier, every other request to the app.

    FastAPI's way to a handler, five layers, two routers and the dependency solver, takes the event loop longer than
    all that this service does there for one image.

    Args:
        app: FastAPI, where the route is described and everything else is served.
        classifier: the handler.
    """

    path = _PATH  # what `Tracking` calls the route; Starlette's own have it too

    def __init__(self, app: ASGIApp, classifier: Classifier) -> None:
        self._app = app
        self._classifier = classifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != _PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["route"] = self
        request = Request(scope, receive)
        try:
            response = await self._classifier(request, _read_query(scope["query_string"]))
        except RequestError as error:
            response = refuse(request, error)
        await response(scope, receive, send)


def classify_router(classifier: Classifier) -> APIRouter:
    """The route, for the OpenAPI document and for whoever does not come by the short way."""
    router = APIRouter()

    @router.post(_PATH, response_model=ClassifyReply, responses=PROBLEMS, openapi_extra=BODY)
    async def classify(request: Request, query: Annotated[ClassifyQuery, Query()]) -> Response:
        """Classify one image or several: multipart parts named `file`, or one raw `image/*` body."""
        return await classifier(request, query)

    return router


def _read_query(text: bytes) -> ClassifyQuery:
    """The query string as FastAPI reads it: of a parameter that comes twice the last counts.

    Raises:
        InvalidParameter: if one is unknown or out of range.
    """
    if not text:
        return _NO_QUERY
    try:
        return ClassifyQuery.model_validate(dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True)))
    except ValidationError:
        raise InvalidParameter from None
