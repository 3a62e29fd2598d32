import asyncio
import gc
import json
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import pytest
from served_process import ServedProcess, served, statuses
from starlette.responses import PlainTextResponse
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.server import ServerState

from service.metrics import Metrics
from service.protocol import BoundedProtocol, GentleTransport, bounded_protocol
from service.security_headers import SECURITY_HEADERS
from service.settings import Settings

from .conftest import picture

RED = picture()
HOST = b"Host: t\r\n"
POST = b"POST /classify HTTP/1.1\r\n" + HOST + b"Content-Type: image/png\r\n"
GET = b"GET /livez HTTP/1.1\r\n" + HOST


def post(body: bytes = RED, headers: bytes = b"") -> bytes:
    return POST + b"Content-Length: %d\r\n" % len(body) + headers + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return b"%x\r\n" % len(body) + body + b"\r\n"


@pytest.fixture(scope="module")
def service(artifact: Path) -> Iterator[ServedProcess]:
    with served(
        artifact,
        header_timeout_s=0.6,
        body_timeout_s=1.2,
        upload_grace_s=0.6,
        linger_timeout_s=1,
        keep_alive_timeout_s=2,
        max_body_bytes=1_000_000,
    ) as service:
        yield service


@pytest.fixture(autouse=True)
def _survives(service: ServedProcess) -> Iterator[None]:
    """After whatever a test did: the same process gives the golden answer, and nothing is held."""
    yield
    with service.connect() as conversation:
        conversation.send(post())
        assert b'"label":"red"' in conversation.reply()
    assert service.process.poll() is None
    text = service.get("/metrics")[1]
    for gauge in ("queue_patches", "decode_inflight", "upload_bytes"):
        assert f"patchserve_{gauge} 0.0" in text
    assert 'outcome="internal"' not in text


def assert_problem(received: bytes, status: int, code: str) -> None:
    assert statuses(received)[-1:] == [status], received
    document = json.loads(received[received.rindex(b"\r\n\r\n") :])
    assert (document["status"], document["code"]) == (status, code)
    assert b"application/problem+json" in received


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(headers=b"Transfer-Encoding: chunked\r\n"),
        post(headers=b"Content-Length: 5\r\n"),
        post(headers=b"Content-Length: %d\r\n" % len(RED)),
        POST + b"Content-Length: 5, 5\r\n\r\nhello",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length: -1\r\n\r\nhello",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n" + chunked(RED),
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunked(RED),
        POST + b"Transfer-Encoding : chunked\r\n\r\n" + chunked(RED),
        GET.replace(b"\r\n", b"\n") + b"\n",
        GET + b"X-A: one\r\n two\r\n\r\n",
        GET + b"X-A: a\x00b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: t/evil\r\n\r\n",
        b"GET /livez\r\n\r\n",
        GET + HOST + b"\r\n",
        "GET /liv\u00e9z HTTP/1.1\r\nHost: t\r\n\r\n".encode(),
        b"no http at all\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_400_and_closed(service: ServedProcess, request_bytes: bytes) -> None:
    assert_problem(service.say(request_bytes), 400, "bad_request")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"no http at all\r\n\r\n",
        GET + b"X-A: b\r\n" * 1000 + b"\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GE",
        GET + b"Connection: close\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Content-Length: 99999999999\r\nConnection: close\r\n\r\n",
    ],
)
def test_every_reply_has_the_security_headers_once(service: ServedProcess, request_bytes: bytes) -> None:
    received = service.say(request_bytes)
    assert len(statuses(received)) == 1
    for name, value in SECURITY_HEADERS:
        assert received.count(b"\r\n" + name + b": " + value + b"\r\n") == 1, received


def test_a_bad_chunk_ends_its_request(service: ServedProcess) -> None:
    before = _count(service, "bad_request")
    received = service.say(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\nhello\r\n0\r\n\r\n")
    assert_problem(received, 400, "bad_request")
    assert len(statuses(received)) == 1
    assert _count(service, "bad_request") == before + 1


def test_http_1_0_needs_no_host(service: ServedProcess) -> None:
    assert statuses(service.say(b"GET /livez HTTP/1.0\r\n\r\n")) == [200]


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (GET + b"X-A: " + b"a" * 10_000_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (GET + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (GET + b"X-A: b\r\n" * 100_000 + b"\r\n", 431, "headers_too_large"),
        (b"GET /" + b"a" * 5_000_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "address_too_long"),
    ],
)
def test_a_header_block_is_bounded_and_the_client_can_read_why(
    service: ServedProcess, request_bytes: bytes, status: int, code: str
) -> None:
    assert_problem(service.say(request_bytes), status, code)


def test_chunks_and_extensions_are_read_and_trailers_dropped(service: ServedProcess) -> None:
    body = b"%x;name=value\r\n" % len(RED) + RED + b"\r\n0\r\nX-Request-ID: from-a-trailer\r\n\r\n"
    with service.connect() as conversation:
        conversation.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        received = conversation.reply()
        assert statuses(received) == [200]
        assert b"from-a-trailer" not in received
        conversation.send(GET + b"\r\n")
        assert statuses(conversation.reply()) == [200]


def test_a_counted_body_over_the_limit_is_413_and_readable(service: ServedProcess) -> None:
    received = service.say(POST + b"Transfer-Encoding: chunked\r\n\r\n", *[chunked(b"x" * 500_000)] * 20)
    assert_problem(received, 413, "body_too_large")


def test_a_declared_body_over_the_limit_is_413_and_readable(service: ServedProcess) -> None:
    for close in (b"", b"Connection: close\r\n"):
        received = service.say(post(b"x" * 12_000_000, headers=close), wait_s=1)
        assert_problem(received, 413, "body_too_large")


def test_a_huge_declaration_is_refused_without_100_continue(service: ServedProcess) -> None:
    received = service.say(POST + b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n")
    assert_problem(received, 413, "body_too_large")
    assert b"100 Continue" not in received


def test_100_continue_is_not_said_to_http_1_0(service: ServedProcess) -> None:
    headers = b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(RED)
    with service.connect() as conversation:
        conversation.send((POST + headers).replace(b"HTTP/1.1", b"HTTP/1.0"))
        conversation.send(RED)
        assert statuses(conversation.reply()) == [200]


def test_100_continue_is_said_when_the_body_is_wanted(service: ServedProcess) -> None:
    with service.connect() as conversation:
        conversation.send(POST + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(RED))
        assert conversation.socket.recv(100).startswith(b"HTTP/1.1 100 Continue")
        conversation.send(RED)
        assert statuses(conversation.reply()) == [200]


def test_a_refused_body_that_arrives_soon_leaves_the_connection_usable(service: ServedProcess) -> None:
    with service.connect() as conversation:
        conversation.send(b"POST /nothing HTTP/1.1\r\n" + HOST + b"Content-Length: 400000\r\n\r\n" + b"x" * 1000)
        assert statuses(conversation.reply()) == [404]
        conversation.send(b"x" * 399_000 + GET + b"\r\n")
        assert statuses(conversation.reply()) == [200]


def test_a_refused_body_that_never_arrives_does_not_hold_the_connection(service: ServedProcess) -> None:
    with service.connect() as conversation:
        conversation.send(b"POST /nothing HTTP/1.1\r\n" + HOST + b"Content-Length: 400000\r\n\r\n")
        assert statuses(conversation.reply()) == [404]
        assert conversation.everything(4) == b""
        assert conversation.socket.recv(1) == b"", "closed by the server"


def test_what_follows_a_body_is_a_request_of_its_own(service: ServedProcess) -> None:
    received = service.say(post() + b"trailing garbage\r\n\r\n")
    assert statuses(received) == [200, 400]
    assert b'"label":"red"' in received


def test_pipelined_requests_are_answered_in_order(service: ServedProcess) -> None:
    asked = [b"a1", b"b2", b"c3", b"d4"]
    requests = [post(headers=b"X-Request-ID: " + name + b"\r\n") for name in asked]
    received = service.say(*requests[:-1], requests[-1].replace(HOST, HOST + b"Connection: close\r\n"))
    assert statuses(received) == [200] * 4
    assert re.findall(rb"x-request-id: (\w+)", received) == asked


def test_a_request_that_is_cut_off_is_nobodys_error(service: ServedProcess) -> None:
    before = _count(service, "client_closed")
    with service.connect() as conversation:
        conversation.send(post()[:-10])
    until = time.monotonic() + 3
    while _count(service, "client_closed") == before and time.monotonic() < until:
        time.sleep(0.02)
    assert _count(service, "client_closed") == before + 1


def _count(service: ServedProcess, outcome: str) -> int:
    found = re.search(rf'requests_total{{outcome="{outcome}",route="/classify"}} (\d+)', service.get("/metrics")[1])
    return int(found[1]) if found else 0


def test_a_client_that_says_nothing_is_closed(service: ServedProcess) -> None:
    with service.connect() as conversation:
        assert conversation.everything(4) == b""
        assert conversation.socket.recv(1) == b""


@pytest.mark.parametrize("start", [b"GET /livez HTTP/1.1\r\nHo", b"GE", POST])
def test_headers_that_do_not_end_are_408(service: ServedProcess, start: bytes) -> None:
    assert_problem(service.say(start), 408, "upload_timeout")


def test_headers_that_drip_are_408(service: ServedProcess) -> None:
    with service.connect() as conversation:
        for byte in GET[:16]:
            conversation.send(bytes([byte]))
            time.sleep(0.05)
        assert_problem(conversation.everything(), 408, "upload_timeout")


def test_a_body_that_does_not_come_is_408(service: ServedProcess) -> None:
    assert_problem(service.say(post()[:-10]), 408, "upload_timeout")


def test_a_body_that_drips_is_408(service: ServedProcess) -> None:
    with service.connect() as conversation:
        conversation.send(POST + b"Content-Length: 100000\r\n\r\n")
        for _ in range(25):
            conversation.send(b"x")
            time.sleep(0.04)
        assert_problem(conversation.everything(), 408, "upload_timeout")


def test_many_silent_clients_leave_room_for_a_good_one(service: ServedProcess) -> None:
    crowd = [service.connect() for _ in range(100)]
    try:
        for place, conversation in enumerate(crowd):
            conversation.send([b"", POST, POST + b"Content-Length: 1000\r\n\r\nx"][place % 3])
        assert service.get("/livez")[0] == service.get("/readyz")[0] == 200
        with service.connect() as good:
            good.send(post())
            assert statuses(good.reply()) == [200]
    finally:
        for conversation in crowd:
            conversation.socket.close()


def test_a_crowd_at_once_is_answered_each_once(service: ServedProcess) -> None:
    replies: list[bytes] = []

    def ask() -> None:
        with service.connect() as conversation:
            conversation.send(post())
            replies.append(conversation.reply())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [statuses(reply) for reply in replies] == [[200]] * 16


@pytest.mark.parametrize(
    ("target", "status"),
    [(b"/../../etc/passwd", 404), (b"/models/..%2f..%2fetc%2fpasswd", 404), (b"*", 404), (b"http://evil/livez", 200)],
)
def test_odd_targets(service: ServedProcess, target: bytes, status: int) -> None:
    assert statuses(service.say(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")) == [status]


def test_upgrades_and_connect_are_refused_or_ignored(service: ServedProcess) -> None:
    received = service.say(GET + b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n", wait_s=1)
    assert statuses(received) == [200]
    assert statuses(service.say(b"CONNECT evil:443 HTTP/1.1\r\nHost: evil\r\n\r\n", wait_s=2))[0] in {400, 404, 405}


# --- head and body ----------------------------------------------------------------------------------------------------
class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"closed")


class Replying:
    """A protocol whose every second write begins a reply."""

    def __init__(self, wire: Wire) -> None:
        self.loop = asyncio.get_running_loop()
        self._begins = cycle([True, False])
        self._wire = wire

    def begins_reply(self) -> bool:
        return next(self._begins)

    def close_gently(self, transport: asyncio.Transport) -> None:
        transport.close()


async def sent_by(write: Callable[[GentleTransport], None]) -> tuple[list[bytes], list[bytes]]:
    """What is sent at once, and a turn of the loop later."""
    wire = Wire()
    write(GentleTransport(wire, cast("BoundedProtocol", Replying(wire))))
    at_once = list(wire.sent)
    await asyncio.sleep(0)
    return at_once, wire.sent


def test_head_and_body_of_a_reply_go_together() -> None:
    def reply(transport: GentleTransport) -> None:
        transport.write(b"head ")
        transport.write(b"body")

    at_once, later = asyncio.run(sent_by(reply))
    assert at_once == later == [b"head body"]


def test_a_head_without_a_body_goes_alone() -> None:
    at_once, later = asyncio.run(sent_by(lambda transport: transport.write(b"head")))
    assert (at_once, later) == ([], [b"head"])


def test_a_head_goes_before_the_end() -> None:
    def reply_and_close(transport: GentleTransport) -> None:
        transport.write(b"head")
        transport.close()

    at_once, later = asyncio.run(sent_by(reply_and_close))
    assert at_once == later == [b"head", b"closed"]


def test_a_reply_to_head_goes_before_the_next_reply(service: ServedProcess) -> None:
    with service.connect() as conversation:
        conversation.send(GET.replace(b"GET", b"HEAD") + b"\r\n" + GET + b"Connection: close\r\n\r\n")
        received = conversation.everything()
    assert len(statuses(received)) == 2
    assert statuses(received)[1] == 200


class Shedding:
    """Refuses at the door whatever asks for `/shed`."""

    def refusal(self, scope: Scope) -> bytes | None:
        return b"HTTP/1.1 429 \r\nContent-Length: 0\r\n\r\n" if scope["path"] == "/shed" else None


async def left_behind(*requests: bytes) -> int:
    """Connections that are still in memory when all have ended, each after its requests, with the collector at rest."""
    made = weakref.WeakSet[BoundedProtocol]()
    config, state = Config(PlainTextResponse("well"), lifespan="off"), ServerState()
    kind = bounded_protocol(Settings(), Metrics(), Shedding())

    def protocol() -> BoundedProtocol:
        connection = cast("BoundedProtocol", kind(config, state, {}))
        made.add(connection)
        return connection

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    for _ in range(3):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for request in requests:
            writer.write(request + b"\r\n")
            await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    server.close()
    await asyncio.wait_for(server.wait_closed(), 5)
    for _ in range(20):
        if made:
            await asyncio.sleep(0.05)
    return len(made)


@pytest.mark.parametrize("requests", [(), (GET,), (GET, GET), (GET.replace(b"/livez", b"/shed"),) * 2])
def test_a_connection_that_has_ended_leaves_nothing_to_collect(requests: tuple[bytes, ...]) -> None:
    """What only the collector finds gathers by thousands, and taking it away stops the loop for milliseconds."""
    gc.disable()
    try:
        assert asyncio.run(left_behind(*requests)) == 0
    finally:
        gc.enable()
