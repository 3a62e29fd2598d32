"""Refusals at the door: a request that would be shed anyway is answered from its first lines, before it is a task.

The usual way through the app to a 429 takes the event loop three times as long. At ten times of the capacity nine
requests of ten are refused, and what that takes is taken from those that are served. Such a request has an id and its
place in the metrics like any other, but the log has one line for all of a second.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Protocol

from starlette.types import Scope
from structlog.typing import FilteringBoundLogger

from service.admission import Admission
from service.errors import Overloaded
from service.lifecycle import Lifecycle, Phase
from service.metrics import Metrics
from service.problems import refusal_response
from service.security_headers import SECURITY_HEADERS
from service.settings import AdmissionSettings
from service.tracking import request_id_of

_PATHS = ("/classify", "/embed", "/explain")
_INFER_ROUTE = "/v2/models/{name}/infer"  # with a version as well
_TIMEOUT = re.compile(rb"(?:^|&)timeout_ms=([0-9]{1,9})(?:&|$)")
# With one of these the reply has more in it, or has to wait.
_UNUSUAL_HEADERS = frozenset({b"expect", b"origin"})
_LOG_EVERY_S = 1.0
_PLACE = "@"  # of the request id in a template


class Door(Protocol):
    """What the HTTP protocol asks before a request becomes a task."""

    def refusal(self, scope: Scope) -> bytes | None:
        """The whole reply for a request that is shed; None: let it in."""


class AdmissionDoor:
    """Sheds what admission would refuse before reading its body.

    Args:
        settings: of admission.
        admission: the gate.
        lifecycle: only a service that serves sheds; any other has more to say.
        metrics: where refusals are counted.
        log: one line a second.
        clock: monotonic, seconds.
        headers: of every reply.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        admission: Admission,
        lifecycle: Lifecycle,
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock: Callable[[], float],
        headers: tuple[tuple[bytes, bytes], ...] = SECURITY_HEADERS,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._headers = headers
        self._parts_of = cache(self._build)  # of a few dozen times to retry after
        self._unlogged = 0
        self._logged_s = -_LOG_EVERY_S

    def refusal(self, scope: Scope) -> bytes | None:
        """The whole reply for a request that is shed; None: let it in."""
        route = _route_of(scope["path"])
        if route is None or scope["method"] != "POST" or self._lifecycle.phase != Phase.SERVING:
            return None
        timeout_ms = self._timeout_ms(scope["query_string"])
        if timeout_ms is None or any(name in _UNUSUAL_HEADERS for name, _ in scope["headers"]):
            return None
        now_s = self._clock()
        try:
            self._admission.check_open(now_s, timeout_ms / 1000)
        except Overloaded as error:
            self._count(route, now_s)
            return self._reply(route, error, request_id_of(scope).encode())
        return None

    def _reply(self, route: str, error: Overloaded, request_id: bytes) -> bytes:
        lines, pieces = self._parts_of(route, error.status, error.retry_after_s)
        body = request_id.join(pieces)
        return b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (lines, len(body), request_id, body)

    def _build(self, route: str, status: int, retry_after_s: int) -> tuple[bytes, list[bytes]]:
        """The header without what differs, and the document in pieces, between which the request id stands."""
        error = Overloaded(retry_after_s, status)
        response = refusal_response(route, error, _PLACE)
        fields = [each for each in response.raw_headers if each[0] != b"content-length"]
        lines = [b"%b: %b" % each for each in [*fields, *self._headers]]
        pieces = bytes(response.body).split(_PLACE.encode())
        return b"\r\n".join([f"HTTP/1.1 {status} {error.title}".encode(), *lines, b""]), pieces

    def _count(self, route: str, now_s: float) -> None:
        self._metrics.request_ended(route, Overloaded.code)
        self._unlogged += 1
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._log.info("shed", requests=self._unlogged)
            self._logged_s, self._unlogged = now_s, 0

    def _timeout_ms(self, query: bytes) -> int | None:
        """None if it is for the app to say what is wrong with it."""
        if b"timeout_ms" not in query:
            return self._settings.default_timeout_ms
        found = _TIMEOUT.search(query)
        if found is None or query.count(b"timeout_ms") > 1 or int(found[1]) > self._settings.max_timeout_ms:
            return None
        return int(found[1])


def _route_of(path: str) -> str | None:
    """What asks for work; None: anything else."""
    if path in _PATHS:
        return path
    return _INFER_ROUTE if path.startswith("/v2/models/") and path.endswith("/infer") else None
