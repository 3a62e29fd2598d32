"""Who may ask what: the layer that reads API keys, before anything of a body is read.

| address                    | wants, once there are keys                                                          |
|----------------------------|-------------------------------------------------------------------------------------|
| probes, pages, the schema  | nothing                                                                             |
| `/metrics`                 | nothing; with `metrics_need_key` a key of role `metrics` or `admin`                 |
| `ADMIN_ROUTES`             | a key of role `admin`; where there is none, the route is not there                  |
| everything else            | a key of role `user` or `admin`; with `allow_anonymous` nothing, but no wrong key   |

Without keys this layer is not installed, and `require_admin` hides the admin routes.
"""

import asyncio
import enum
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.errors import Draining, Forbidden, Internal, NotFound, RequestError, Unauthorized
from service.keys import Key, Role, find_key, read_keys
from service.metrics import Metrics
from service.page_files import PAGE_FILES
from service.problems import refuse
from service.settings import AccessSettings
from service.tracking import PROBES, ids_of, remember

if TYPE_CHECKING:
    from service.rates import Rates

ADMIN_ROUTES = ("/models/{name}/reload", "/models/reload")

_METRICS_PATH = "/metrics"
_OPEN_PATHS = (PROBES | {"/", "/docs", "/openapi.json"}) - {_METRICS_PATH}
_NAMED_PATHS = frozenset(
    {"/classify", "/embed", "/explain", "/models", _METRICS_PATH}
)  # what a refusal may be counted under
_PREFLIGHT_S = 600
_LENGTH_HEADER = "Inference-Header-Content-Length"  # of the Open Inference Protocol


class Realm(enum.Enum):
    """What an address belongs to; the value is who may go there."""

    SERVICE = frozenset({Role.USER, Role.ADMIN})
    METRICS = frozenset({Role.METRICS, Role.ADMIN})
    ADMIN = frozenset({Role.ADMIN})


class Gate:
    """Decides; knows keys and how often each may ask.

    Args:
        keys: at least one.
        rates: None if no key has a rate.
        allow_anonymous: the service itself is for everybody.
        metrics_need_key: the metrics are not.
    """

    def __init__(
        self, keys: Sequence[Key], rates: "Rates | None", *, allow_anonymous: bool, metrics_need_key: bool
    ) -> None:
        self._keys = keys
        self._rates = rates
        self._allow_anonymous = allow_anonymous
        self._has_admin = any(key.role == Role.ADMIN for key in keys)
        self._open_paths = _OPEN_PATHS if metrics_need_key else _OPEN_PATHS | {_METRICS_PATH}
        self._admin_paths = [(compile_path(route)[0], route) for route in ADMIN_ROUTES]

    def count_as(self, row: int) -> None:
        """In a process of several: which of them it is, from 0."""
        if self._rates is not None:
            self._rates.count_as(row)

    def is_open(self, path: str) -> bool:
        """Whether nobody needs a key here."""
        return path in self._open_paths or path.startswith(PAGE_FILES)

    def lets_anybody_in(self, path: str) -> bool:
        """Whether a request without a key is served here, although one with a wrong key is not."""
        return self._allow_anonymous and path != _METRICS_PATH and self.admin_route(path) is None

    def admin_route(self, path: str) -> str | None:
        """Which of the admin routes this is."""
        return next((route for pattern, route in self._admin_paths if pattern.match(path)), None)

    def identify(self, scope: Scope) -> Key | None:
        """Whose key came with a request; None if none came.

        Raises:
            Unauthorized: if there are several, or one that is not known.
        """
        presented = _presented(scope)
        if not presented:
            return None
        key = find_key(self._keys, presented[0])
        if key is None or len(presented) > 1:
            raise Unauthorized
        return key

    def check(self, key: Key | None, realm: Realm) -> None:
        """Let the holder of a key, or of none, in.

        Raises:
            NotFound: if there is no admin, and so nothing to administer.
            Unauthorized: if a key is needed.
            Forbidden: if the key is not for this.
            RateLimited: if it comes too often.
        """
        if realm == Realm.ADMIN and not self._has_admin:
            raise NotFound
        if key is None:
            if realm == Realm.SERVICE and self._allow_anonymous:
                return
            raise Unauthorized
        if key.role not in realm.value:
            raise Forbidden
        if self._rates is not None:
            self._rates.count(key)


def open_gate(settings: AccessSettings, processes: int = 1, clock: Callable[[], float] = time.monotonic) -> Gate | None:
    """The gate of the settings; None if there are no keys.

    Args:
        settings: keys, and what needs none.
        processes: how many will have the gate; they are forked after this.
        clock: monotonic, seconds.

    Raises:
        StartError: if the keys are wrong.
    """
    keys = read_keys(settings)
    if not keys:
        return None
    rates = None
    if any(key.rate for key in keys):
        from service.rates import Rates  # noqa: PLC0415 - the library behind it takes 66 ms to import

        rates = Rates(keys, processes, clock)
    return Gate(keys, rates, allow_anonymous=settings.allow_anonymous, metrics_need_key=settings.metrics_need_key)


def guarded(
    app: ASGIApp, settings: AccessSettings, gate: Gate | None, metrics: Metrics, log: FilteringBoundLogger
) -> ASGIApp:
    """The app behind the layers that the settings ask for; without keys and origins the app itself."""
    if gate is not None:
        app = Access(app, gate, metrics, log)
    # Outside of the keys: a browser asks for permission without one, and the page may read why it was refused.
    return Cors(app, settings.cors_origins) if settings.cors_origins else app


def require_admin(request: Request) -> None:
    """For `Depends` of a route in `ADMIN_ROUTES`: the second lock, and the only one where there are no keys.

    Raises:
        NotFound: unless the request came with an admin's key.
    """
    key: Key | None = request.scope["state"].get("key")
    if key is None or key.role != Role.ADMIN:
        raise NotFound


class Access:
    """ASGI: refuses who has no right to what is asked, and writes a line for everything that an admin does.

    Args:
        app: what is behind it.
        gate: decides.
        metrics: where requests are counted by key.
        log: where admin calls are noted.
    """

    def __init__(self, app: ASGIApp, gate: Gate, metrics: Metrics, log: FilteringBoundLogger) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or self._gate.is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        route = self._gate.admin_route(scope["path"])
        if route is not None:
            await self._audited(route, scope, receive, send)
        else:
            realm = Realm.METRICS if scope["path"] == _METRICS_PATH else Realm.SERVICE
            await self._serve(realm, scope, receive, send)

    async def _serve(self, realm: Realm, scope: Scope, receive: Receive, send: Send) -> None:
        request, key = Request(scope), None
        try:
            key = self._gate.identify(scope)
            if key is not None:
                remember(request, key=key.name)
                scope["state"]["key"] = key
            self._gate.check(key, realm)
        except RequestError as error:
            self._count(key, error.code)
            if scope["path"] in _NAMED_PATHS:
                scope["route"] = _Named(scope["path"])
            await refuse(request, error)(scope, receive, send)
            return
        self._count(key, "accepted")
        await self._app(scope, receive, send)

    def _count(self, key: Key | None, verdict: str) -> None:
        if key is not None:
            self._metrics.key_used(key.name, verdict)

    async def _audited(self, route: str, scope: Scope, receive: Receive, send: Send) -> None:
        """A line whatever comes of it, whoever asked. A warning, so that `log_level` has to be raised on purpose."""
        state, outcome = scope["state"], Internal.code
        scope["route"] = _Named(route)
        try:
            await self._serve(Realm.ADMIN, scope, receive, send)
            outcome = state.get("problem", "ok")
        except asyncio.CancelledError:
            outcome = Draining.code
            raise
        finally:
            key: Key | None = state.get("key")
            self._log.warning(
                "admin_call",
                **ids_of(state),
                key=None if key is None else key.name,
                route=route,
                outcome=outcome,
            )


class _Named:
    """In the place of Starlette's route, for a request that does not get there. Args: the path as it was written."""

    def __init__(self, path: str) -> None:
        self.path = path


def _presented(scope: Scope) -> list[bytes]:
    """All keys of a request. Another scheme than Bearer is none: it may be between the client and the proxy."""
    found = []
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.append(value)
        elif name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(rest.strip(b" "))
    return found


class Cors(CORSMiddleware):
    """ASGI: lets pages of other origins ask. Args: what it wraps, and the origins, as browsers write them."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type", _LENGTH_HEADER, "X-API-Key", "X-Request-ID"),
            expose_headers=(_LENGTH_HEADER, "Retry-After", "X-Request-ID"),
            max_age=_PREFLIGHT_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a browser's question beforehand, or serve one request."""
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                answer = self.preflight_response(headers)
                if answer.status_code >= 400:  # Starlette's is not a problem document
                    answer = refuse(Request(scope), Forbidden())
                await answer(scope, receive, send)
                return
        await super().__call__(scope, receive, send)
