"""Spans: one for a request, with its stages below it, and one for a batch, linked to its requests.

Stages are timed where they happen and become spans when they are over, so the hot path has nothing of this in it.
Nothing that a client wrote is in a span but the trace that it said it belongs to (`traceparent`, `tracestate`).
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue
from starlette.types import Scope

from service.engine import Model
from service.scheduler import BatchReport
from service.stages import Stage
from service.tracing.references import SpanReference
from service.tracking import METHODS

_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"  # of the names of attributes that are not ours
_SERVER_ERROR = 500
Attributes = dict[str, AttributeValue]


class Tracing:
    """What makes spans in this process.

    Args:
        processor: is given every span that ends.
        clock: monotonic, seconds.
        process: what this one does, where there are several.
        wall_ns: nanoseconds since 1970.
    """

    def __init__(
        self,
        processor: SpanProcessor,
        clock: Callable[[], float],
        process: str = "all",
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._processor = processor
        self._clock = clock
        self._wall_ns = wall_ns
        resource = _resource(process)
        self._requests = _tracer(processor, resource)
        # A batch has a trace of its own. Whether it is kept was decided with its requests: there is none without one.
        self._batches = _tracer(processor, resource, ALWAYS_ON)

    def begin(self, scope: Scope, arrived_s: float) -> "RequestSpan":
        """The span of a request, in the trace that its headers name, or in a new one."""
        now_ns = self._wall_ns()
        context = propagate.extract(scope["headers"], Context(), _HEADERS)
        attributes = _server_attributes(scope)
        span = self._requests.start_span("request", context, SpanKind.SERVER, attributes, start_time=now_ns)
        return RequestSpan(self._requests, span, now_ns - _ns(arrived_s), self._clock)

    def batch_ran(self, model: Model, report: BatchReport) -> None:
        """The span of one engine run, if one of its requests has one."""
        if not report.origins:
            return
        offset_ns = self._wall_ns() - _ns(self._clock())
        span = self._batches.start_span(
            "batch",
            Context(),
            attributes=_batch_attributes(model, report),
            links=[Link(_context_of(each)) for each in report.origins],
            start_time=offset_ns + _ns(report.began_s),
        )
        if report.failed:
            span.set_status(StatusCode.ERROR)
        span.end(offset_ns + _ns(report.ended_s))

    def close(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s` seconds, whatever becomes of it."""
        closing = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(timeout_s)


class RequestSpan:
    """The span of one request.

    Args:
        tracer: makes the spans of its stages.
        span: has begun.
        offset_ns: from the clock to the time since 1970.
        clock: monotonic, seconds.

    Attributes:
        ids: for the lines of its log.
        reference: for others to point at it; None if it is not sampled.
    """

    __slots__ = ("_clock", "_offset_ns", "_span", "_tracer", "ids", "reference")

    def __init__(self, tracer: Tracer, span: Span, offset_ns: int, clock: Callable[[], float]) -> None:
        self._tracer = tracer
        self._span = span
        self._offset_ns = offset_ns
        self._clock = clock
        context = span.get_span_context()
        trace_id, span_id = context.trace_id.to_bytes(16), context.span_id.to_bytes(8)
        self.ids = {"trace_id": trace_id.hex(), "span_id": span_id.hex()}
        self.reference = SpanReference(trace_id, span_id) if context.trace_flags.sampled else None

    def add(self, stages: Sequence[Stage], facts: Mapping[str, int]) -> None:
        """Stages that are over, as spans below this one that is sampled, and numbers of the whole request."""
        self._span.set_attributes(_ours(facts))
        below = set_span_in_context(self._span, Context())
        for stage in stages:
            span = self._tracer.start_span(
                stage.name, below, attributes=_ours(stage.facts), start_time=self._at(stage.began_s)
            )
            if stage.error is not None:
                span.set_attribute("error.type", stage.error)
                span.set_status(StatusCode.ERROR)
            span.end(self._at(stage.ended_s))

    def end(self, method: str, route: str, status: int, outcome: str) -> None:
        """The reply is sent, or there is none.

        Args:
            method: of HTTP, or `other`.
            route: as it was written in the code.
            status: of HTTP.
            outcome: `ok` or the code of a problem.
        """
        if self.reference is not None:
            self._span.update_name(f"{'HTTP' if method == 'other' else method} {route}")
            self._span.set_attributes(
                {"http.route": route, "http.response.status_code": status, "patchserve.outcome": outcome}
            )
            if status >= _SERVER_ERROR:
                self._span.set_attribute("error.type", outcome)
                self._span.set_status(StatusCode.ERROR)
        self._span.end(self._at(self._clock()))

    def _at(self, moment_s: float) -> int:
        return self._offset_ns + _ns(moment_s)


class _Headers(Getter[Any]):
    """Reads those of ASGI: pairs of bytes, with names in lower case."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        wanted = key.encode()
        return [value.decode("latin-1") for name, value in carrier if name == wanted] or None

    def keys(self, carrier: Any) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_HEADERS = _Headers()


def _tracer(processor: SpanProcessor, resource: Resource, sampler: Sampler | None = None) -> Tracer:
    """None: the sampler of the standard variables. The provider is ours alone, not the one of the process."""
    provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("patchserve", version("patchserve"), _SCHEMA)


def _resource(process: str) -> Resource:
    """What the standard variables say, and where they say nothing, who we are."""
    said = Resource.create()
    ours: Attributes = {
        SERVICE_VERSION: version("patchserve"),
        "process.pid": os.getpid(),
        "patchserve.process": process,
    }
    if str(said.attributes[SERVICE_NAME]).startswith("unknown_service"):
        said = said.merge(Resource({SERVICE_NAME: "patchserve"}))
    return said.merge(Resource({name: value for name, value in ours.items() if name not in said.attributes}))


def _server_attributes(scope: Scope) -> Attributes:
    """By the names of the semantic conventions, without those whose value is a client's: path, query, host, agent."""
    attributes: Attributes = {
        "http.request.method": scope["method"] if scope["method"] in METHODS else "_OTHER",
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if server := scope.get("server"):
        attributes["server.address"] = server[0]
        if server[1] is not None:
            attributes["server.port"] = server[1]
    return attributes


def _ours(facts: Mapping[str, int]) -> Attributes:
    return {f"patchserve.{name}": value for name, value in facts.items()}


def _batch_attributes(model: Model, report: BatchReport) -> Attributes:
    return {
        "patchserve.images": report.images,
        "patchserve.patches": report.patches,
        "patchserve.padding": report.padded_patches - report.patches,
        "patchserve.provider": model.provider,
        "patchserve.model.name": model.manifest.name,
        "patchserve.model.version": model.manifest.version,
    }


def _context_of(reference: SpanReference) -> SpanContext:
    return SpanContext(
        int.from_bytes(reference.trace_id),
        int.from_bytes(reference.span_id),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
