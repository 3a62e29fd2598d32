"""BentoML: a service of `PEER_WORKERS` workers with an adaptively batched API; multipart upload.

As its docs recommend: `@bentoml.api(batchable=True, max_batch_size=..., max_latency_ms=...)`
(https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html), `workers` above one where the model does not
fill the cores (https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html). The batched
API is called by the client itself, with one file: a second service in front of it would cost one more hop.
`max_latency_ms` is the age at which requests are refused with 503, so it is 120 s. Started by `bentoml serve` with
tracking, request metrics and access log off.
"""

from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.servers.classifier import Classifier, PeerSettings

_SETTINGS = PeerSettings.from_environment()


@bentoml.service(
    workers=_SETTINGS.workers,
    traffic={"timeout": 120},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Service:
    """JPEG to reply, in batches."""

    def __init__(self) -> None:
        self._classifier = Classifier(_SETTINGS)

    @bentoml.api(batchable=True, max_batch_size=_SETTINGS.max_batch, max_latency_ms=120_000)
    def classify(self, file: list[Path]) -> list[dict[str, Any]]:
        """One batch of uploads, which BentoML hands over as files."""
        return self._classifier.classify_files([path.read_bytes() for path in file])
