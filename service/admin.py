"""The routes of whoever runs the service. `service.access` lets nobody else in."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from service.access import require_admin
from service.errors import ModelRefused
from service.problems import problem
from service.reload import Reload, Reloaded
from service.replies import ModelName


class ReloadedModel(BaseModel):
    """What a reload did to one name; `old` and `new` are its newest versions before and after."""

    name: str
    outcome: str = Field(description="added, reloaded or unchanged")
    old: ModelName | None
    new: ModelName | None


class ReloadReply(BaseModel):
    """What a reload did."""

    models: list[ReloadedModel]
    request_id: str


def admin_router(reload: Reload) -> APIRouter:
    """`POST /models/{name}/reload` and `POST /models/reload`."""
    problems: dict[int | str, dict[str, Any]] = {
        401: problem("`unauthorized`: no valid API key, where the service has keys"),
        403: problem("`forbidden`: not a key of role `admin`"),
        404: problem("`not_found`: no such model, or nobody administers this service"),
        409: problem("`model_refused`: the model goes on as before; the log says why"),
        429: problem("`rate_limited`: try again after `Retry-After` seconds"),
    }
    router = APIRouter(dependencies=[Depends(require_admin)], responses=problems)

    @router.post("/models/reload", response_model=ReloadReply)
    async def reload_all(request: Request) -> ReloadReply:
        """Look at all files of the service again, and serve what is new."""
        return _reply(request, await reload(None))

    @router.post("/models/{name}/reload", response_model=ReloadReply)
    async def reload_one(request: Request, name: str) -> ReloadReply:
        """Look at the files of one model again, and serve what is new."""
        return _reply(request, await reload(name))

    return router


def _reply(request: Request, reloaded: list[Reloaded]) -> ReloadReply:
    """Raises: ModelRefused: if any was refused; what was not refused has been done nevertheless."""
    if any(each.outcome == "refused" for each in reloaded):
        raise ModelRefused
    models = [ReloadedModel(name=each.name, outcome=each.outcome, old=each.old, new=each.new) for each in reloaded]
    return ReloadReply(models=models, request_id=request.state.request_id)
