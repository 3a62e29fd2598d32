"""POST /embed: the features of images, the way /classify takes them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from service.classify import BODY, PROBLEMS, Answered, Answering, UploadQuery, YesNo
from service.extras import Extras
from service.replies import EmbedReply, embedded


class EmbedQuery(UploadQuery):
    """Those of whoever wants features."""

    normalize: YesNo = Field(default=True, description="false: as the model gives them, not of length 1")


class Embedder(Answering[EmbedQuery]):
    """Answers with embeddings."""

    extras = Extras.EMBEDDING

    async def _reply(self, done: Answered[EmbedQuery]) -> Response:
        reply = EmbedReply(
            model=done.served.name,
            results=[embedded(job, normalize=done.query.normalize) for job in done.jobs],
            timing_ms=self._close(done),
            request_id=done.request.scope["state"]["request_id"],
        )
        return Response(reply.to_json(), media_type="application/json")


def embed_router(embedder: Embedder) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post("/embed", response_model=EmbedReply, responses=PROBLEMS, openapi_extra=BODY)
    async def embed(request: Request, query: Annotated[EmbedQuery, Query()]) -> Response:
        """Features of one image or several: the pooled tokens before the head, of length 1 unless `normalize=false`."""
        return await embedder(request, query)

    return router
