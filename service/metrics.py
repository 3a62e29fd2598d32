"""All metrics, in one registry of their own. Labels come from fixed sets, never from a client.

When several processes serve together, prometheus-client keeps the numbers in files of a shared folder, named by
`PROMETHEUS_MULTIPROC_DIR` before it is imported; whoever is asked answers for all.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from service.scheduler import BatchReport, Fate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS_TYPE = "application/openmetrics-text"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
_PATCHES = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)
_RATIO = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


class Metrics(Collector):
    """One instance per app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._watched = CollectorRegistry()
        # Requests: how many, how they ended (`ok` or the code of a problem), how long each stage took.
        self.requests = self._counter("requests", "Requests by route and outcome", "route", "outcome")
        # By API key: the names are the operator's own words, and as many as there are keys.
        self.key_requests = self._counter("key_requests", "Requests by API key and verdict", "key", "verdict")
        self.images = self._counter("images", "Uploaded images by outcome", "outcome")
        self.stages = self._histogram("stage_seconds", "Seconds by stage of a request", _SECONDS, "stage")
        # Batches: what ran together, and how much of it was padding.
        self.batch_images = self._histogram("batch_images", "Images of a batch", _IMAGES)
        self.batch_patches = self._histogram("batch_patches", "Patches of a batch without padding", _PATCHES)
        self.padding_ratio = self._histogram("batch_padding_ratio", "Padding / padded patches of a batch", _RATIO)
        self.batches = self._counter("batches", "Engine runs by outcome", "outcome")
        self.fates = self._counter("scheduled_images", "Images that left the scheduler, by fate", "fate")
        self.degraded = self._counter("degraded_images", "Images with fewer patches than asked for, because of load")
        self.loop_stalls = self._counter("event_loop_stalls", "Times that an event loop did not turn for two seconds")
        self.reloads = self._counter("reloads", "Models that were to be loaded again, by outcome", "outcome")
        # What is going on now; all return to 0 at rest.
        self.inflight = self._gauge("inflight_requests", "Requests without a complete reply")
        self.connections = self._gauge("open_connections", "Connections of clients")
        self.rests = self._counter(
            "rested_connections", "Times that a connection was not read after a refusal, for a pace"
        )
        self.decode_inflight = self._gauge("decode_inflight", "Images in a decode thread")
        # Decoders: processes that take images and those that had to be replaced, or threads that are lost.
        self.decode_workers = self._gauge("decode_workers", "Decode processes that take images")
        self.decode_workers_lost = self._counter("decode_workers_lost", "Decode processes by why they ended", "reason")
        self.decode_threads_hung = self._gauge("decode_threads_hung", "Decode threads that do not come back")
        # `labels` checks and formats at every call: what it gave is kept. Labels are few, see above.
        self._request = cache(self.requests.labels)
        self._key = cache(self.key_requests.labels)
        self._image = cache(self.images.labels)
        self._stage = cache(self.stages.labels)
        self._batch = cache(self.batches.labels)
        self._fate = cache(self.fates.labels)

    def request_ended(self, route: str, outcome: str) -> None:
        """Count one request by how it ended: `ok` or the code of a problem."""
        self._request(route, outcome).inc()

    def key_used(self, name: str, verdict: str) -> None:
        """Count one request of a known key: `accepted` or the code of the refusal."""
        self._key(name, verdict).inc()

    def image_answered(self, outcome: str) -> None:
        """Count one upload by how it ended."""
        self._image(outcome).inc()

    def stage_took(self, stage: str, seconds: float, trace: str | None = None) -> None:
        """Note how long one stage of a request took, with the trace that shows it as an example if it has one."""
        self._stage(stage).observe(seconds, None if trace is None else {"trace_id": trace})

    def batch_ran(self, report: BatchReport) -> None:
        """Count one engine run."""
        self._batch("failed" if report.failed else "ok").inc()
        self.batch_images.observe(report.images)
        self.batch_patches.observe(report.patches)
        self.padding_ratio.observe(1 - report.patches / report.padded_patches)

    def image_left(self, fate: Fate) -> None:
        """Count one image that left the scheduler."""
        self._fate(fate).inc()

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks; `read` answers for all processes."""
        self._watched.register(_Watched(f"patchserve_{name}", text, read))

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self)

    def render_for(self, accepted: str) -> tuple[bytes, str]:
        """What a header `Accept` asks for, and its type: OpenMetrics, which alone has exemplars, or `render`."""
        if OPEN_METRICS_TYPE not in accepted:
            return self.render(), CONTENT_TYPE
        text: bytes = openmetrics.generate_latest(self)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        """Everything, whichever process counted it."""
        counted = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            counted = CollectorRegistry()
            MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
        yield from counted.collect()
        yield from self._watched.collect()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"patchserve_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"patchserve_{name}", text, registry=self._registry, multiprocess_mode="livesum")

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"patchserve_{name}", text, labels, buckets=buckets, registry=self._registry)


class _Watched(Collector):
    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._name = name
        self._text = text
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(self._name, self._text, value=self._read())
