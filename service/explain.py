"""POST /explain: the answer of /classify and the attention behind it, as numbers or as a picture."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from model.manifest import Manifest
from service.accounts import Accounts
from service.admission import Admission
from service.classify import BODY, PROBLEMS, Answered, Answering, ClassifyQuery
from service.errors import ExplainNotAvailable, NotAcceptable, RequestError
from service.extras import Extras
from service.lifecycle import Lifecycle
from service.models import Models
from service.overlay import Box, picture_bytes
from service.painting import Painter
from service.problems import problem, refuse
from service.replies import Explained, ExplainReply, explained
from service.settings import Settings
from service.unread import LargeReply

_PNG, _JSON = "image/png", "application/json"
_SMALL_VALUES = 10_000  # so many are written about as fast as a thread is woken
_RESPONSES: dict[int | str, dict[str, Any]] = PROBLEMS | {
    200: {"content": {_PNG: {"schema": {"type": "string", "format": "binary"}}}},
    406: problem("`not_acceptable`: several images, and a picture as the answer"),
    409: problem("`explain_not_available`: the model was exported without attention"),
}


class Explainer(Answering[ClassifyQuery]):
    """Answers with labels and attention.

    Args:
        painter: makes pictures.
        the others: of `Answering`.
    """

    extras = Extras.ATTENTION

    def __init__(
        self,
        settings: Settings,
        models: Models,
        admission: Admission,
        lifecycle: Lifecycle,
        accounts: Accounts,
        clock: Callable[[], float],
        painter: Painter,
    ) -> None:
        super().__init__(settings, models, admission, lifecycle, accounts, clock)
        self._painter = painter

    def _check(self, query: ClassifyQuery, manifest: Manifest) -> tuple[int, int, float]:
        if not manifest.explain:
            raise ExplainNotAvailable
        return super()._check(query, manifest)

    def _check_uploads(self, request: Request, uploads: Sequence[bytes]) -> None:
        if len(uploads) > 1 and wants_picture(request.headers.get("accept", "")):
            raise NotAcceptable

    async def _reply(self, done: Answered[ClassifyQuery]) -> Response:
        spec = done.served.manifest.preprocessing
        results = [explained(job, spec) for job in done.jobs]
        if isinstance(results[0], Explained) and wants_picture(done.request.headers.get("accept", "")):
            return await self._picture(done, results[0].region)
        reply = ExplainReply(
            model=done.served.name,
            results=results,
            timing_ms=self._close(done),
            request_id=done.request.scope["state"]["request_id"],
        )
        small = sum(job.grid[0] * job.grid[1] for job in done.jobs) < _SMALL_VALUES
        return Response(reply.to_json() if small else await asyncio.to_thread(reply.to_json), media_type=_JSON)

    async def _picture(self, done: Answered[ClassifyQuery], region: Box) -> Response:
        [job], background = done.jobs, done.served.manifest.preprocessing.background
        assert job.header is not None  # noqa: S101 - it has been explained
        assert job.inference is not None  # noqa: S101
        assert job.inference.found.attention is not None  # noqa: S101
        shares = job.inference.found.attention.reshape(job.grid)
        with self._admission.decoding(job.decode_cost), self._admission.hold_upload() as memory:
            try:
                memory.take(picture_bytes(*job.header.upright_size))
                content = await self._painter.paint(
                    done.uploads[0], job.header, background, shares, region, done.wanted.deadline_s
                )
            except RequestError as error:
                job.error = error  # the image has labels, and nobody gets them
                self._accounts.close(done.request, done.jobs, done.upload)
                return refuse(done.request, error)
        self._close(done)
        return LargeReply(content, _PNG, self._admission.ledger)


def wants_picture(accept: str) -> bool:
    """Whether a header `Accept` names PNG, and not JSON before it. Weights are not read."""
    named = [each.partition(";")[0].strip().lower() for each in accept.split(",")]
    return next((each for each in named if each in {_PNG, _JSON}), _JSON) == _PNG


def explain_router(explainer: Explainer) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post("/explain", response_model=ExplainReply, responses=_RESPONSES, openapi_extra=BODY)
    async def explain(request: Request, query: Annotated[ClassifyQuery, Query()]) -> Response:
        """Labels and the share of attention of each patch; with `Accept: image/png` the picture under a heat map."""
        return await explainer(request, query)

    return router
