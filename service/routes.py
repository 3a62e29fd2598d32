"""The routes that inform: probes, metrics, models, the schema."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.models import Models
from service.problems import problem
from service.replies import ModelList, summary_of

_PROBE_METHODS = ["GET", "HEAD"]


def information_router(models: Models, lifecycle: Lifecycle, metrics: Metrics) -> APIRouter:
    """Probes, metrics, models, the schema."""
    router = APIRouter()
    _add_probes(router, lifecycle, metrics)
    _add_models(router, models)
    _add_schema(router)
    return router


def _add_probes(router: APIRouter, lifecycle: Lifecycle, metrics: Metrics) -> None:
    @router.api_route("/livez", methods=_PROBE_METHODS, include_in_schema=False)
    async def livez() -> dict[str, str]:
        """The event loop turns."""
        return {"status": "ok"}

    @router.api_route("/readyz", methods=_PROBE_METHODS, include_in_schema=False)
    async def readyz() -> dict[str, str]:
        """The model is loaded and answers well, the event loop is in time, and the process is not about to stop."""
        if unready := lifecycle.unready:
            raise unready
        return {"status": "ok"}

    @router.api_route("/metrics", methods=_PROBE_METHODS, include_in_schema=False)
    async def prometheus(request: Request) -> Response:
        """Prometheus text, or OpenMetrics where that is asked for."""
        text, content_type = metrics.render_for(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type, "Vary": "Accept"})


def _add_models(router: APIRouter, models: Models) -> None:
    @router.get("/models", response_model=ModelList)
    async def listed() -> ModelList:
        """What is served: every version of every model."""
        default = models.choose(None)
        return ModelList(
            models=[
                summary_of(served.model, newest=models.is_newest(served), default=served is default)
                for served in models.all()
            ]
        )

    @router.get("/models/{name}", responses={404: problem("`not_found`")})
    async def one_model(name: str) -> dict[str, Any]:
        """The manifest of a model, its digest, its state, and how many patches an image has as the load rises.

        `name` is NAME or NAME@VERSION.
        """
        served = models.choose(name)
        model = served.model
        return {
            "manifest": asdict(model.manifest),
            "digest": model.digest,
            "provider": model.provider,
            "state": "ready",
            "brown_out": [asdict(step) for step in served.brown_out.steps],
        }


def _add_schema(router: APIRouter) -> None:
    @router.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> dict[str, Any]:
        schema: dict[str, Any] = request.app.openapi()
        return schema
