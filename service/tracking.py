"""The outermost layer: every request gets an id, exactly one outcome in the metrics, and one line in the log."""

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.errors import ClientClosed, Draining, Internal, RequestError
from service.lifecycle import Lifecycle, Phase
from service.metrics import Metrics
from service.problems import refusal_response
from service.security_headers import SECURITY_HEADERS

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_REFUSAL = "refusal"
PROBES = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})


class Tracking:
    """ASGI middleware around the whole app.

    Args:
        app: what it wraps.
        metrics: where outcomes are counted.
        log: where lines go.
        lifecycle: while it drains, connections are told to close.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        log: FilteringBoundLogger,
        lifecycle: Lifecycle,
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._lifecycle = lifecycle
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing but a cancelled start or end of the app gets out of here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id_of(scope)
        state["arrived_s"] = started = self._clock()
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
            self._log.exception("bug", request_id=scope["state"]["request_id"])
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
        route = getattr(scope.get("route"), "path", "unmatched")
        outcome = state.get("problem", "ok")
        self._metrics.request_ended(route, outcome)
        write = self._log.debug if route in PROBES else self._log.info
        write(
            "request",
            request_id=state["request_id"],
            method=scope["method"] if scope["method"] in _METHODS else "other",
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
            if self._lifecycle.phase >= Phase.DRAINING:
                headers["Connection"] = "close"
        await self._send(message)


def request_id_of(scope: Scope) -> str:
    """The caller's id if it is harmless, else a new one."""
    given = Headers(scope=scope).getlist("x-request-id")
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else new_request_id()


def new_request_id() -> str:
    """32 hexadecimal digits that tell requests apart; they need not be secret, so the kernel is not asked for them."""
    return f"{random.getrandbits(128):032x}"


def note_refusal(scope: Mapping[str, Any], error: RequestError) -> None:
    """The server itself answers a request that is in its handler; it is counted when the handler has ended."""
    scope["state"][_REFUSAL] = error


def remember(request: Request, **facts: Any) -> None:
    """Add facts of our own (numbers, fixed words) to the request's log line."""
    request.scope["state"].setdefault("log", {}).update(facts)
