"""Ray Serve: `PEER_WORKERS` replicas with `@serve.batch`; raw JPEG bodies.

As its docs recommend: `@serve.batch` with `max_ongoing_requests` above the batch size
(https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html), and the high-throughput mode of Ray 2.56 and
later, RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_THROUGHPUT_OPTIMIZED=1, which puts HAProxy in front and leaves Ray's
router out of the path (https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html). Each replica has
a core and its batch runs in a thread, so that its event loop stays free. No dashboard, no usage statistics.
"""

import asyncio
import signal
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.servers.classifier import Classifier, PeerSettings

_SETTINGS = PeerSettings.from_environment()


@serve.deployment(
    num_replicas=_SETTINGS.workers,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 1},
)
class Deployment:
    """JPEG to reply, in batches."""

    def __init__(self, settings: PeerSettings) -> None:
        self._classifier = Classifier(settings)

    @serve.batch(max_batch_size=_SETTINGS.max_batch, batch_wait_timeout_s=0.001)
    async def _classify(self, files: list[bytes]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._classifier.classify_files, files)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        reply: dict[str, Any] = await self._classify(await request.body())
        return reply


def main() -> None:
    """Serve until SIGTERM."""
    ray.init(num_cpus=4, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": _SETTINGS.port, "request_timeout_s": 120})
    serve.run(Deployment.bind(_SETTINGS), name="peer", route_prefix="/classify")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
