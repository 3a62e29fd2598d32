"""One replica on Ray Serve: the whole service of `service.app`, without its socket.

Ray's controller asks it whether it is well and how much work it has, and tells it to end: it routes nothing more to it,
waits for what it has accepted, and then runs the end of the app's lifespan.
"""

from typing import Any

from fastapi import FastAPI
from ray import serve

from service.access import open_gate
from service.app import create_app
from service.errors import NotFound
from service.lifecycle import Lifecycle
from service.logs import quiet_libraries
from service.neighbours import Neighbours
from service.reload import Reload, Reloaded, worst_of
from service.scaling import WAIT
from service.settings import Settings


@serve.ingress()
class Replica:
    """What `serve.deployment` takes. The app is built where the replica runs: Ray starts and ends its lifespan.

    Args:
        settings: of the service; those of the socket have no effect.
    """

    def __init__(self, settings: Settings) -> None:
        quiet_libraries()
        self._settings = settings
        self._lifecycle = Lifecycle()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray, once.

        Raises:
            StartError: if the model, the provider or the settings cannot serve.
        """
        neighbours = Neighbours(open_gate(self._settings), share_reload=self._share)
        app = create_app(self._settings, lifecycle=self._lifecycle, neighbours=neighbours)
        self._admission = app.state.admission
        return app

    def _share(self, reload: Reload) -> Reload:
        self._reload = reload
        return self._reload_all

    async def check_health(self) -> None:
        """Called by Ray, which replaces a replica that is not ready three times in a row.

        Raises:
            Unavailable: if `/readyz` would say so.
        """
        if unready := self._lifecycle.unready:
            raise unready

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray: the queued patches, in seconds of the engine's work."""
        return {WAIT: self._admission.engine_wait_s()}

    async def reconfigure(self, _: Any) -> None:
        """Called by Ray at the start and whenever `user_config` has changed: looks at the model files again."""
        await self._reload(None)

    async def reload(self, name: str | None) -> list[Reloaded] | None:
        """Look at the model files again, in this replica alone; None if there is no such model."""
        try:
            return await self._reload(name)
        except NotFound:
            return None

    async def _reload_all(self, name: str | None) -> list[Reloaded]:
        context = serve.get_replica_context()
        replicas = serve.get_deployment_handle(context.deployment, context.app_name)
        answers = await replicas.broadcast("reload", name).results_async()
        if all(answer is None for answer in answers):
            raise NotFound
        return worst_of([answer for answer in answers if answer is not None])
