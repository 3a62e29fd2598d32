import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn
from served_process import Conversation, ServedProcess, served, statuses
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from structlog.testing import CapturingLogger

from service import protocol
from service.admission import Admission, Rate
from service.door import AdmissionDoor
from service.lifecycle import Lifecycle, Phase
from service.metrics import Metrics
from service.settings import Settings

from .conftest import picture

RED = picture()
GET = b"GET /models HTTP/1.1\r\nHost: t\r\n\r\n"


class Bench:
    """A door in front of an engine that does 100 patches a second, with two seconds of work before it."""

    def __init__(self) -> None:
        rate = Rate()
        rate.observe(100, 1.0)
        settings, self.lifecycle, self.metrics = Settings(), Lifecycle(), Metrics()
        self.admission = Admission(settings, 2, rate)
        self.admission.ledger.add_patches(200)
        self.lifecycle.advance(Phase.SERVING)
        self.now_s = 0.0
        self.log = CapturingLogger()
        log = structlog.wrap_logger(self.log, processors=[lambda _, __, event: ((), event)])
        self.door = AdmissionDoor(settings, self.admission, self.lifecycle, self.metrics, log, lambda: self.now_s)

    def ask(self, query: bytes = b"", path: str = "/classify", method: str = "POST", **headers: bytes) -> bytes | None:
        named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
        return self.door.refusal({"path": path, "method": method, "query_string": query, "headers": named})


@pytest.mark.parametrize("path", ["/classify", "/embed", "/explain"])
def test_what_would_be_too_late_is_refused_at_the_door(path: str) -> None:
    bench = Bench()
    reply = bench.ask(path=path, x_request_id=b"mine")
    assert reply is not None
    head, _, body = reply.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert (fields[b"x-request-id"], int(fields[b"content-length"])) == (b"mine", len(body))
    assert fields[b"retry-after"] in {b"2", b"3"}
    document = json.loads(body)
    assert (document["code"], document["status"], document["request_id"]) == ("overloaded", 429, "mine")
    assert f'requests_total{{outcome="overloaded",route="{path}"}} 1.0' in bench.metrics.render().decode()


@pytest.mark.parametrize("path", ["/v2/models/tiny-colours/infer", "/v2/models/tiny-colours/versions/1/infer"])
def test_inference_is_refused_at_the_door_in_the_words_of_its_protocol(path: str) -> None:
    bench = Bench()
    reply = bench.ask(path=path, x_request_id=b"mine")
    assert reply is not None
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nx-request-id: mine" in head
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head
    assert json.loads(body).keys() == {"error"}
    route = 'requests_total{outcome="overloaded",route="/v2/models/{name}/infer"} 1.0'
    assert route in bench.metrics.render().decode()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"query": b"timeout_ms=30000"}, "there is time enough"),
        ({"path": "/models", "method": "GET"}, "probes and information are free"),
        ({"path": "/v2/models/tiny-colours/ready", "method": "GET"}, "probes and information are free"),
        ({"path": "/v2/models/tiny-colours/infer", "method": "GET"}, "405"),
        ({"method": "GET"}, "405"),
        ({"query": b"timeout_ms=x"}, "422"),
        ({"query": b"timeout_ms=99999999"}, "422"),
        ({"query": b"timeout_ms=1&timeout_ms=30000"}, "the app knows which counts"),
        ({"expect": b"100-continue"}, "a body may follow or not"),
        ({"origin": b"http://t"}, "a browser wants more headers"),
    ],
)
def test_everything_else_goes_in(asked: dict[str, Any], why: str) -> None:
    assert Bench().ask(**asked) is None, why


def test_only_a_service_that_serves_sheds() -> None:
    bench = Bench()
    bench.lifecycle.advance(Phase.DRAINING)
    assert bench.ask() is None


def test_the_log_has_one_line_a_second() -> None:
    bench = Bench()
    for now_s in (0.0, 0.1, 0.2, 1.1):
        bench.now_s = now_s
        bench.ask()
    assert [call.kwargs["requests"] for call in bench.log.calls] == [1, 3]


# --- on a connection ------------------------------------------------------------------------------------------------
def post(body: bytes = RED, more: str = "") -> bytes:
    head = f"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@pytest.fixture
def full(artifact: Path) -> Iterator[ServedProcess]:
    """A service whose memory for uploads is taken by a request that is half sent."""
    with served(artifact, max_upload_memory_bytes=10, linger_timeout_s=0.3) as service, service.connect() as holder:
        holder.send(post()[: -len(RED) + 10])
        while "patchserve_upload_bytes 10.0" not in service.get("/metrics")[1]:
            pass
        yield service


def reply_of(conversation: Conversation) -> tuple[int, Any]:
    reply = conversation.reply()
    return statuses(reply)[0], json.loads(reply.partition(b"\r\n\r\n")[2])


def test_a_refused_connection_lives_on(full: ServedProcess) -> None:
    with full.connect() as conversation:
        for _ in range(3):
            conversation.send(post())
            assert reply_of(conversation)[0] == 429
        conversation.send(GET)
        assert reply_of(conversation)[0] == 200


def test_the_door_says_what_the_app_says(full: ServedProcess) -> None:
    with full.connect() as conversation:
        replies = []
        for more in ("", "Origin: http://t\r\n"):
            conversation.send(post(more=more))
            replies.append(reply_of(conversation)[1])
    for reply in replies:
        assert re.fullmatch("[0-9a-f]{32}", reply.pop("request_id"))
    assert replies[0] == replies[1]


def test_the_reply_is_there_before_the_body(full: ServedProcess) -> None:
    with full.connect() as conversation:
        conversation.send(post()[: -len(RED)])
        assert reply_of(conversation)[0] == 429
        conversation.send(RED[:7])
        conversation.send(RED[7:] + GET)
        assert reply_of(conversation)[0] == 200


def test_a_body_that_never_comes_does_not_hold_the_connection(full: ServedProcess) -> None:
    with full.connect() as conversation:
        conversation.send(post()[: -len(RED)])
        assert statuses(conversation.everything()) == [429]


def test_pipelined_requests_are_answered_in_order(full: ServedProcess) -> None:
    with full.connect() as conversation:
        conversation.send((post() + GET) * 7 + b"GET / HTTP/1.0\r\nHost: t\r\nConnection: close\r\n\r\n")
        assert statuses(conversation.everything()) == [429, 200] * 7 + [200]


def test_who_comes_back_at_once_too_often_is_read_more_slowly_and_loses_nothing(full: ServedProcess) -> None:
    with full.connect() as conversation:
        conversation.send(post() * 400 + GET.replace(b"Host: t", b"Host: t\r\nConnection: close"))
        assert statuses(conversation.everything()) == [429] * 400 + [200]
    assert rested(full) > 0


def test_a_few_refusals_are_answered_at_full_speed(full: ServedProcess) -> None:
    with full.connect() as conversation:
        for _ in range(20):
            conversation.send(post())
            assert reply_of(conversation)[0] == 429
    assert rested(full) == 0


@pytest.mark.anyio
async def test_a_refusal_by_the_app_counts_for_the_pace_and_an_answer_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[float] = []

    class Pace:
        def rest_s(self, now_s: float) -> float:
            counted.append(now_s)
            return 0.01

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/refused":
            scope["state"]["problem"] = "rate_limited"
        await Response(status_code=429 if scope["path"] == "/refused" else 200)(scope, receive, send)

    monkeypatch.setattr(protocol, "RefusalPace", Pace)
    config = uvicorn.Config(app, http=protocol.bounded_protocol(Settings(), Metrics()), lifespan="off", log_config=None)
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: config.http_protocol_class(config, state, {}), "127.0.0.1", 0)  # type: ignore[call-arg]
    async with listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
        for path, seen in (("/refused", 1), ("/", 1), ("/refused", 2)):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
            assert await reader.readuntil(b"\r\n\r\n")
            assert len(counted) == seen
        writer.close()
        await writer.wait_closed()
        while state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)


def rested(service: ServedProcess) -> float:
    found = re.search(r"^patchserve_rested_connections_total (\S+)$", service.get("/metrics")[1], re.MULTILINE)
    assert found is not None
    return float(found[1])
