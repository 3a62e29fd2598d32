"""The outermost layer: every request gets an id, exactly one outcome in the metrics, and one line in the log."""

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.errors import ClientClosed, Draining, Internal, RequestError
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.problems import refusal_response
from service.security_headers import SECURITY_HEADERS
from service.tracing.references import SpanReference

if TYPE_CHECKING:
    from service.tracing.spans import RequestSpan, Tracing

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_REFUSAL = "refusal"
_SPAN = "span"
PROBES = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})


class Tracking:
    """ASGI middleware around the whole app.

    Args:
        app: what it wraps.
        metrics: where outcomes are counted.
        log: where lines go.
        lifecycle: while it drains, connections are told to close.
        clock: monotonic, seconds.
        tracing: makes a span of every request but probes; None: nobody wants any.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        log: FilteringBoundLogger,
        lifecycle: Lifecycle,
        clock: Callable[[], float],
        tracing: "Tracing | None" = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._lifecycle = lifecycle
        self._clock = clock
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing but a cancelled start or end of the app gets out of here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id_of(scope)
        state["arrived_s"] = started = self._clock()
        if self._tracing is not None and scope["path"] not in PROBES:
            state[_SPAN] = self._tracing.begin(scope, started)
        reply = _Reply(send, state["request_id"], self._lifecycle)
        with self._metrics.inflight.track_inprogress():
            await self._serve(scope, receive, reply)
        self._record(scope, reply.status, self._clock() - started)

    async def _serve(self, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        try:
            await self._app(scope, receive, reply.send)
        except asyncio.CancelledError:
            # Only the server cancels a request, when the grace period is over.
            await self._refuse(Draining(), scope, receive, reply)
        except Exception:  # noqa: BLE001 - the last place where a bug can become a reply
            self._log.exception("bug", **ids_of(scope["state"]))
            await self._refuse(Internal(), scope, receive, reply)

    async def _refuse(self, error: RequestError, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        scope["state"]["problem"] = error.code
        if reply.status == 0:
            response = refusal_response(scope["path"], error, scope["state"]["request_id"])
            await response(scope, receive, reply.send)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope["state"]
        if status == 0 or _REFUSAL in state:
            error: type[RequestError] | RequestError = state.get(_REFUSAL, ClientClosed)
            state["problem"], status = error.code, error.status
        route = route_of(scope)
        outcome = state.get("problem", "ok")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.request_ended(route, outcome)
        if (span := span_of(state)) is not None:
            span.end(method, route, status, outcome)
        write = self._log.debug if route in PROBES else self._log.info
        write(
            "request",
            **ids_of(state),
            method=method,
            route=route,
            status=status,
            outcome=outcome,
            milliseconds=round(seconds * 1000, 2),
            **state.get("log", {}),
        )


class _Reply:
    """The ASGI `send` of one request: notes the status and adds the headers that every reply has."""

    def __init__(self, send: Send, request_id: str, lifecycle: Lifecycle) -> None:
        self._send = send
        self._request_id = request_id
        self._lifecycle = lifecycle
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            own = {name for name, _ in headers.raw}
            headers.raw.extend(each for each in SECURITY_HEADERS if each[0] not in own)
            if self._lifecycle.ending:
                headers["Connection"] = "close"
        await self._send(message)


def request_id_of(scope: Scope) -> str:
    """The caller's id if it is harmless, else a new one."""
    given = Headers(scope=scope).getlist("x-request-id")
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else new_request_id()


def new_request_id() -> str:
    """32 hexadecimal digits that tell requests apart; they need not be secret, so the kernel is not asked for them."""
    return f"{random.getrandbits(128):032x}"


def route_of(scope: Scope) -> str:
    """The address as it was written in the code, never as it was asked for."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def ids_of(state: Mapping[str, Any]) -> dict[str, str]:
    """What every log line of a request has: its id and, where there are traces, the ids of its span."""
    span = span_of(state)
    return {"request_id": state["request_id"], **({} if span is None else span.ids)}


def span_of(state: Mapping[str, Any]) -> "RequestSpan | None":
    """The span of a request; None where there are no traces."""
    span: RequestSpan | None = state.get(_SPAN)
    return span


def origin_of(request: Request) -> SpanReference | None:
    """The span of a request that is sampled."""
    span = span_of(request.scope["state"])
    return None if span is None else span.reference


def note_refusal(scope: Mapping[str, Any], error: RequestError) -> None:
    """The server itself answers a request that is in its handler; it is counted when the handler has ended."""
    scope["state"][_REFUSAL] = error


def remember(request: Request, **facts: Any) -> None:
    """Add facts of our own (numbers, fixed words) to the request's log line."""
    request.scope["state"].setdefault("log", {}).update(facts)
