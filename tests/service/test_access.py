import io
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

from service.access import ADMIN_ROUTES, guarded, open_gate, require_admin
from service.app import create_app
from service.keys import digest_of
from service.lifecycle import Lifecycle
from service.logs import LossyStream, open_log
from service.metrics import Metrics
from service.problems import install_handlers
from service.security_headers import SECURITY_HEADERS
from service.settings import AccessSettings, LogSettings, Settings
from service.tracking import Tracking

from .conftest import Serving, picture

pytestmark = pytest.mark.anyio

USER, SECOND, ADMIN, GRAPHS, STRANGER = (f"patchserve_{word * 12}" for word in ("usr", "2nd", "adm", "gra", "out"))


def line(key: str, name: str, role: str = "user", rate: str = "") -> str:
    return f"{name}:{role}:{digest_of(key.encode()).hex()}{rate and ':' + rate}"


USERS = f"{line(USER, 'shop')},{line(SECOND, 'camera')}"
ALL = f"{USERS},{line(ADMIN, 'boss', 'admin')},{line(GRAPHS, 'graphs', 'metrics')}"
RELOAD = ADMIN_ROUTES[0].replace("{name}", "m")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Behind:
    """A small app behind the layers, with everything it leaves behind."""

    def __init__(self, clock: Any = None, **settings: Any) -> None:
        self.text = io.StringIO()
        self.metrics = Metrics()
        self.reloads = 0
        access = AccessSettings(**settings)
        log = open_log(LogSettings(log_format="json"), LossyStream(self.text), is_terminal=False)
        gate = open_gate(access) if clock is None else open_gate(access, clock=clock)

        def wrap(inner: ASGIApp) -> ASGIApp:
            return Tracking(
                guarded(inner, access, gate, self.metrics, log), self.metrics, log, Lifecycle(), lambda: 0.0
            )

        self.app = wrap(self._routes())

    def _routes(self) -> FastAPI:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        install_handlers(app)

        @app.post("/classify")
        async def classify() -> str:
            return "answer"

        @app.get("/metrics")
        async def metrics() -> str:
            return "numbers"

        @app.get("/livez")
        async def livez() -> str:
            return "alive"

        @app.post(ADMIN_ROUTES[0])
        async def reload(name: str, _: Annotated[None, Depends(require_admin)]) -> str:
            self.reloads += 1
            if name == "broken":
                raise RuntimeError
            return "reloaded"

        return app

    async def ask(self, method: str, path: str, headers: Any = None, content: Any = None) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.request(method, f"http://t{path}", headers=headers, content=content)

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(text) for text in self.text.getvalue().splitlines()]
        return [each for each in found if each["event"] == event]


def assert_refused(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in response.headers) == (status == 401)


# --- keys -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "headers",
    [
        bearer(USER),
        bearer(SECOND),
        bearer(ADMIN),
        {"X-API-Key": USER},
        {"authorization": f"bearer   {USER}"},
        {"X-API-Key": USER, "Authorization": "Basic cHJveHk6c2VjcmV0"},
    ],
)
async def test_a_valid_key_opens_the_service(headers: dict[str, str]) -> None:
    assert (await Behind(api_keys=ALL).ask("POST", "/classify", headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", f"Bearer {STRANGER}")],
        [("Authorization", f"Bearer {USER[:-1]}")],
        [("Authorization", f"Bearer {USER.upper()}")],
        [("Authorization", f"Bearer {USER} {USER}")],
        [("Authorization", f"Bearer {USER},")],
        [("Authorization", f"Bearer{USER}")],
        [("Authorization", f"Bearer\t{USER}")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "")],
        [("Authorization", USER)],
        [("Authorization", f"Token {USER}")],
        [("Authorization", f"Basic {USER}")],
        [("Authorization", f"Bearer {digest_of(USER.encode()).hex()}")],
        [("Authorization", f"Bearer {USER}"), ("Authorization", f"Bearer {USER}")],
        [("Authorization", f"Bearer {USER}"), ("X-API-Key", USER)],
        [("Authorization", f"Bearer {USER}"), ("X-API-Key", "")],
        [("X-API-Key", USER), ("X-API-Key", STRANGER)],
        [("X-API-Key", f"Bearer {USER}")],
        [("X-API-Key", "k" * 10_000)],
        [("X-API-Key", "пароль".encode())],
        [("X-API-Key", b"\xff\xfe\x80")],
        [("Authorization", "Bearer \U0001f511".encode())],
        [("Cookie", f"key={USER}")],
    ],
)
async def test_anything_else_is_401_and_leaves_no_trace(headers: list[tuple[str, str | bytes]]) -> None:
    behind = Behind(api_keys=ALL)
    response = await behind.ask("POST", f"/classify?key={USER}", headers)
    assert_refused(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    everything = response.text + str(response.headers) + behind.text.getvalue() + behind.metrics.render().decode()
    for secret in (USER, STRANGER, "kkkk", "пароль", digest_of(USER.encode()).hex()):
        assert secret not in everything
    assert 'requests_total{outcome="unauthorized",route="/classify"} 1.0' in everything
    [request] = behind.lines("request")
    assert (request["status"], request["outcome"], "key" in request) == (401, "unauthorized", False)


async def test_the_name_of_a_key_is_in_the_log_and_the_metrics_and_the_key_is_not() -> None:
    behind = Behind(api_keys=ALL)
    await behind.ask("POST", "/classify", bearer(USER))
    await behind.ask("POST", "/classify", bearer(GRAPHS))
    assert [each["key"] for each in behind.lines("request")] == ["shop", "graphs"]
    text = behind.metrics.render().decode()
    assert 'key_requests_total{key="shop",verdict="accepted"} 1.0' in text
    assert 'key_requests_total{key="graphs",verdict="forbidden"} 1.0' in text
    assert USER not in text + behind.text.getvalue()


@pytest.mark.parametrize(
    "path", ["/classify", "/nothing", "/livez/", "//livez", "/metrics/", "/docs/x", "/favicon.ico"]
)
async def test_no_address_but_the_open_ones_tells_a_stranger_anything(path: str) -> None:
    assert_refused(await Behind(api_keys=ALL).ask("GET", path), 401, "unauthorized")


@pytest.mark.parametrize("path", ["/livez", "/metrics"])
async def test_probes_and_metrics_ask_for_no_key_and_mind_no_wrong_one(path: str) -> None:
    behind = Behind(api_keys=ALL)
    for headers in ({}, bearer(STRANGER)):
        assert (await behind.ask("GET", path, headers)).status_code == 200


async def test_metrics_may_be_locked() -> None:
    behind = Behind(api_keys=ALL, metrics_need_key=True)
    assert_refused(await behind.ask("GET", "/metrics"), 401, "unauthorized")
    assert_refused(await behind.ask("GET", "/metrics", bearer(USER)), 403, "forbidden")
    assert (await behind.ask("GET", "/metrics", bearer(GRAPHS))).status_code == 200
    assert (await behind.ask("GET", "/metrics", bearer(ADMIN))).status_code == 200
    assert_refused(await behind.ask("POST", "/classify", bearer(GRAPHS)), 403, "forbidden")
    assert (await behind.ask("GET", "/livez")).status_code == 200


async def test_the_service_may_be_for_everybody_while_its_administration_is_not() -> None:
    behind = Behind(api_keys=ALL, allow_anonymous=True)
    assert (await behind.ask("POST", "/classify")).status_code == 200
    assert (await behind.ask("POST", "/classify", bearer(USER))).status_code == 200
    assert_refused(await behind.ask("POST", "/classify", bearer(STRANGER)), 401, "unauthorized")
    assert_refused(await behind.ask("POST", RELOAD), 401, "unauthorized")
    assert (await behind.ask("POST", RELOAD, bearer(ADMIN))).status_code == 200


async def test_without_keys_the_layer_is_not_there() -> None:
    settings = AccessSettings()
    app = FastAPI()
    assert guarded(app, settings, open_gate(settings), Metrics(), logging.getLogger()) is app  # type: ignore[arg-type]


async def test_a_body_is_not_read_before_the_key() -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x"

    behind = Behind(api_keys=ALL)
    assert_refused(await behind.ask("POST", "/classify", content=body()), 401, "unauthorized")
    assert read == 0


# --- rates ------------------------------------------------------------------------------------------------------------
async def test_who_asks_too_often_is_refused_and_others_are_not() -> None:
    now_s = 50.25
    keys = line(USER, "shop", rate="2/minute"), line(SECOND, "camera", rate="3/minute"), line(ADMIN, "boss", "admin")
    behind = Behind(lambda: now_s, api_keys=" ".join(keys))
    replies = [await behind.ask("POST", "/classify", bearer(USER)) for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 200, 429, 429]
    assert_refused(replies[2], 429, "rate_limited")
    assert replies[2].headers["retry-after"] == "10"
    for other in (SECOND, ADMIN):
        assert [(await behind.ask("POST", "/classify", bearer(other))).status_code for _ in range(3)] == [200] * 3
    assert (await behind.ask("GET", "/livez", bearer(USER))).status_code == 200
    now_s += 9.74
    assert (await behind.ask("POST", "/classify", bearer(USER))).status_code == 429
    now_s += 0.01
    assert (await behind.ask("POST", "/classify", bearer(USER))).status_code == 200
    text = behind.metrics.render().decode()
    assert 'key_requests_total{key="shop",verdict="rate_limited"} 3.0' in text
    assert 'requests_total{outcome="rate_limited",route="/classify"} 3.0' in text


async def test_wrong_keys_take_nothing_from_the_rate_of_a_good_one() -> None:
    behind = Behind(lambda: 0.0, api_keys=line(USER, "shop", rate="1/day"))
    for headers in ([("X-API-Key", USER)] * 2, [("X-API-Key", STRANGER)]):
        assert_refused(await behind.ask("POST", "/classify", headers), 401, "unauthorized")
    assert (await behind.ask("POST", "/classify", bearer(USER))).status_code == 200


# --- administration ---------------------------------------------------------------------------------------------------
async def test_only_an_admin_administers_and_every_attempt_is_noted() -> None:
    behind = Behind(api_keys=ALL)
    assert_refused(await behind.ask("POST", RELOAD), 401, "unauthorized")
    assert_refused(await behind.ask("POST", RELOAD, bearer(STRANGER)), 401, "unauthorized")
    assert_refused(await behind.ask("POST", RELOAD, bearer(USER)), 403, "forbidden")
    assert_refused(await behind.ask("POST", RELOAD, bearer(GRAPHS)), 403, "forbidden")
    assert behind.reloads == 0
    assert (await behind.ask("POST", RELOAD, bearer(ADMIN))).status_code == 200
    assert_refused(await behind.ask("GET", RELOAD, bearer(ADMIN)), 405, "method_not_allowed")
    broken = ADMIN_ROUTES[0].replace("{name}", "broken")
    assert (await behind.ask("POST", broken, bearer(ADMIN))).json()["code"] == "internal"
    assert behind.reloads == 2
    assert [(each["key"], each["outcome"]) for each in behind.lines("admin_call")] == [
        (None, "unauthorized"),
        (None, "unauthorized"),
        ("shop", "forbidden"),
        ("graphs", "forbidden"),
        ("boss", "ok"),
        ("boss", "method_not_allowed"),
        ("boss", "internal"),
    ]
    assert {each["route"] for each in behind.lines("admin_call")} == {ADMIN_ROUTES[0]}
    assert {each["level"] for each in behind.lines("admin_call")} == {"warning"}
    ids = [each["request_id"] for each in behind.lines("request")]
    assert [each["request_id"] for each in behind.lines("admin_call")] == ids


async def test_what_the_client_wrote_is_not_in_the_audit() -> None:
    behind = Behind(api_keys=ALL)
    await behind.ask("POST", ADMIN_ROUTES[0].replace("{name}", "evil%0Aname"), {"User-Agent": "evil", **bearer(ADMIN)})
    assert "evil" not in behind.text.getvalue()


@pytest.mark.parametrize("keys", ["", USERS])
async def test_without_an_admin_key_there_is_nothing_to_administer(keys: str) -> None:
    behind = Behind(api_keys=keys)
    assert_refused(await behind.ask("POST", RELOAD), 404, "not_found")
    assert_refused(await behind.ask("POST", RELOAD, bearer(USER)), 404, "not_found")
    assert behind.reloads == 0


@pytest.mark.parametrize("path", ["/models/a%2Fb/reload", "//models/m/reload", "/models/m/reload/", "/models//reload"])
async def test_no_other_way_of_writing_the_address_gets_past_the_lock(path: str) -> None:
    behind = Behind(api_keys=ALL, allow_anonymous=True)
    assert (await behind.ask("POST", path)).status_code in {307, 401, 404}
    assert (await behind.ask("POST", path, bearer(USER))).status_code in {307, 403, 404}
    assert behind.reloads == 0


async def test_the_route_has_a_lock_of_its_own() -> None:
    """If its address were missing among the admin routes, a user's key would come this far."""
    app = FastAPI()
    install_handlers(app)

    @app.post("/other")
    async def other(_: Annotated[None, Depends(require_admin)]) -> str:
        return "done"

    settings = AccessSettings(api_keys=ALL)
    metrics, log = Metrics(), open_log(LogSettings(), LossyStream(io.StringIO()), is_terminal=False)
    inner = guarded(app, settings, open_gate(settings), metrics, log)
    tracked = Tracking(inner, metrics, log, Lifecycle(), lambda: 0.0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(tracked), base_url="http://t") as client:
        assert (await client.post("/other", headers=bearer(USER))).status_code == 404
        assert (await client.post("/other", headers=bearer(ADMIN))).status_code == 200


# --- other origins ----------------------------------------------------------------------------------------------------
SHOP_PAGE = "https://shop.example"


def preflight(origin: str = SHOP_PAGE, method: str = "POST", headers: str = "authorization") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


async def test_other_origins_get_nothing_by_default(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        reply = await client.options("/classify", headers=preflight())
        assert reply.status_code == 405
        answer = await client.post("/classify", content=red, headers={"Content-Type": "image/png", "Origin": SHOP_PAGE})
    assert answer.status_code == 200
    for each in (reply, answer):
        assert not [name for name in each.headers if name.startswith("access-control")]


async def test_a_named_origin_may_ask_by_the_short_way(serving: Serving, red: bytes) -> None:
    async with serving(cors_origins=f"{SHOP_PAGE},http://localhost:3000", api_keys=ALL) as client:
        asked = await client.options("/classify", headers=preflight(headers="authorization, content-type, x-api-key"))
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == SHOP_PAGE
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "Origin" in asked.headers["vary"]
        assert "access-control-allow-credentials" not in asked.headers
        headers = {"Content-Type": "image/png", "Origin": SHOP_PAGE}
        answer = await client.post("/classify", content=red, headers=headers | bearer(USER))
        refused = await client.post("/classify", content=red, headers=headers)
    assert answer.json()["results"][0]["predictions"][0]["label"] == "red"
    assert_refused(refused, 401, "unauthorized")
    for each in (answer, refused):
        assert each.headers["access-control-allow-origin"] == SHOP_PAGE
        assert each.headers["vary"] == "Origin"
        assert "Retry-After" in each.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "headers",
    [
        preflight(origin="https://evil.example"),
        preflight(origin="https://shop.example.evil.example"),
        preflight(origin="https://shop.example:8443"),
        preflight(origin="http://shop.example"),
        preflight(origin="null"),
        preflight(origin="*"),
        preflight(origin=""),
        preflight(method="DELETE"),
        preflight(headers="x-evil"),
    ],
)
async def test_any_other_question_beforehand_is_refused_without_an_echo(headers: dict[str, str]) -> None:
    behind = Behind(cors_origins=SHOP_PAGE)
    response = await behind.ask("OPTIONS", "/classify", headers)
    assert_refused(response, 403, "forbidden")
    assert "access-control-allow-origin" not in response.headers
    assert "evil" not in response.text + str(response.headers) + behind.text.getvalue()
    assert behind.lines("request")[0]["outcome"] == "forbidden"


async def test_a_foreign_page_cannot_read_an_answer() -> None:
    behind = Behind(cors_origins=SHOP_PAGE)
    response = await behind.ask("POST", "/classify", {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


# --- headers ----------------------------------------------------------------------------------------------------------
async def test_every_reply_has_the_security_headers_once(serving: Serving, red: bytes) -> None:
    async with serving(api_keys=ALL, cors_origins=SHOP_PAGE) as client:
        user = bearer(USER)
        replies = [
            await client.get("/"),
            await client.get("/docs"),
            await client.get("/openapi.json"),
            await client.get("/livez"),
            await client.get("/metrics"),
            await client.get("/models", headers=user),
            await client.post("/classify", content=red, headers={"Content-Type": "image/png"} | user),
            await client.post("/classify", content=b"no image", headers={"Content-Type": "image/png"} | user),
            await client.post("/classify"),
            await client.get("/classify", headers=user),
            await client.get("/nothing", headers=user),
            await client.get("/models", headers=bearer(GRAPHS)),
            await client.options("/classify", headers=preflight()),
            await client.options("/classify", headers=preflight(method="TRACE")),
        ]
    assert {reply.status_code for reply in replies} == {200, 401, 403, 404, 405, 422}
    for reply in replies:
        for name, value in SECURITY_HEADERS:
            own = {"cache-control": "no-cache"} if reply.url.path in {"/", "/docs"} else {}
            assert reply.headers.get_list(name.decode()) == [own.get(name.decode(), value.decode())], (reply.url, name)
        assert "strict-transport-security" not in reply.headers


# --- the page ---------------------------------------------------------------------------------------------------------
async def test_pages_open_without_a_key_and_the_first_one_takes_it(serving: Serving) -> None:
    async with serving(api_keys=ALL) as client:
        page = await client.get("/")
        schema = await client.get("/openapi.json")
        scripts = [(await client.get(f"/page/{name}.js")).text for name in ("page", "api")]
        assert (await client.get("/docs")).status_code == 200
        assert_refused(await client.get("/pages"), 401, "unauthorized")
    policy = page.headers["content-security-policy"]
    assert all(rule in policy for rule in ("connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"))
    assert re.search(r'<input id="key" type="password" autocomplete="off"', page.text)
    assert '"X-API-Key"' in "".join(scripts)
    described = schema.json()["paths"]["/classify"]["post"]["responses"]
    assert "unauthorized" in described["401"]["description"]
    assert "rate_limited" in described["429"]["description"]


# --- the whole service ------------------------------------------------------------------------------------------------
async def test_the_service_answers_whoever_has_a_key(serving: Serving, red: bytes, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(ALL.replace(",", "\n"))
    async with serving(api_keys_file=tmp_path / "keys") as client:
        assert_refused(await client.post("/classify", files={"file": red}), 401, "unauthorized")
        answer = await client.post("/classify", files={"file": red}, headers={"X-API-Key": USER})
        assert answer.json()["results"][0]["predictions"][0]["label"] == "red"
        assert (await client.get("/readyz")).status_code == 200


@asynccontextmanager
async def logged(artifact: Path, text: io.StringIO, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    chosen = Settings(model=artifact, log_format="json", **settings)
    app = create_app(chosen, log=open_log(chosen, LossyStream(text), is_terminal=False))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client,
    ):
        yield client


async def test_the_line_of_a_request_names_the_key_and_nothing_of_it(artifact: Path) -> None:
    text = io.StringIO()
    async with logged(artifact, text, api_keys=ALL) as client:
        image = picture()
        for headers in (bearer(USER), bearer(STRANGER), {"X-API-Key": SECOND}):
            await client.post("/classify", content=image, headers={"Content-Type": "image/png"} | headers)
    lines = [json.loads(each) for each in text.getvalue().splitlines()]
    assert [(each["status"], each.get("key")) for each in lines] == [(200, "shop"), (401, None), (200, "camera")]
    assert not re.search(r"patchserve_|[0-9a-f]{64}", text.getvalue())


def test_wrong_keys_stop_the_start_before_the_model_is_read(tmp_path: Path) -> None:
    from service.errors import StartError

    with pytest.raises(StartError, match="entry 1 is not NAME"):
        create_app(Settings(model=tmp_path / "nowhere.onnx", api_keys="x"))
