"""One running service, everything that was said to it, and what it cost."""

import json
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile_images import encode
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from served_process import Conversation, ServedProcess, served

from service.page_files import read_page_files

HOST = b"Host: t\r\n"
GET = b"GET /livez HTTP/1.1\r\n" + HOST
POST = b"POST /classify HTTP/1.1\r\n" + HOST
RAW = POST + b"Content-Type: image/png\r\n"
CLOSE = b"Connection: close\r\n"
RED = encode(Image.new("RGB", (28, 28), (220, 20, 20)), "PNG")
PATCHES = 49  # of RED
HEAD = RAW + b"Content-Length: %d\r\n\r\n" % len(RED)
PATIENT = HEAD.replace(b"/classify", b"/classify?timeout_ms=20000") + RED

# Cases put these words wherever a client can put some; none may come back, in a reply or in the log.
MARKER = b"sesame"
_FORBIDDEN = (MARKER, b"passwd", b"Traceback", b'File "', b"site-packages", b"/service/", b"PIL", b"<script")

_OWN = {file.content for file in read_page_files().values()}  # the pages have scripts and paths in them

ROUTES = {
    "/", "/classify", "/docs", "/embed", "/explain", "/livez", "/metrics", "/models", "/models/{name}",
    "/models/{name}/reload", "/models/reload", "/openapi.json", "/page/{name:path}", "/readyz", "/v2",
    "/v2/cudasharedmemory/{rest:path}", "/v2/health/live", "/v2/health/ready", "/v2/repository/index",
    "/v2/repository/models/{name}/load", "/v2/systemsharedmemory/{rest:path}", "unmatched",
    *(
        f"/v2/models/{{name}}{version}{rest}"
        for version in ("", "/versions/{version}")
        for rest in ("", "/config", "/generate", "/infer", "/ready")
    ),
}  # fmt: skip
CODES = {
    "bad_inference": 400,
    "bad_multipart": 400,
    "bad_request": 400,
    "not_offered": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "upload_timeout": 408,
    "body_too_large": 413,
    "address_too_long": 414,
    "unsupported_media_type": 415,
    "image_too_large": 422,
    "invalid_image": 422,
    "invalid_parameter": 422,
    "overloaded": 429,
    "headers_too_large": 431,
    "client_closed": 499,
    "internal": 500,
    "draining": 503,
    "model_replaced": 503,
    "not_ready": 503,
    "deadline_exceeded": 504,
    "ok": 200,
}


@dataclass(frozen=True)
class Reply:
    """One reply of the stream that came back on a connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """`ok`, or the code of the problem document, which must be one, with nothing in it but our own words.

        Errors of the Open Inference Protocol have no code: the status stands for it.
        """
        if self.status in {200, 304}:
            return "ok"
        document = json.loads(self.body)
        if self.headers["content-type"] == "application/json":
            assert document.keys() == {"error"}
            return str(self.status)
        assert self.headers["content-type"] == "application/problem+json", self
        assert document.keys() == {"type", "title", "status", "code", "detail", "request_id"}
        assert (document["status"], document["request_id"]) == (self.status, self.headers["x-request-id"])
        assert CODES[document["code"]] == self.status
        return str(document["code"])


def replies_of(received: bytes) -> list[Reply]:
    """The replies on one connection, without 1xx."""
    replies = []
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        assert end, f"cut off: {head[:200]!r}"
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) [\w -]+", first)
        assert match, first
        if match[1].startswith("1"):
            continue
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert headers["x-content-type-options"] == "nosniff"
        length = 0 if match[1] == "304" else int(headers["content-length"])
        assert len(received) >= length, f"cut off: {received[:200]!r}"
        replies.append(Reply(int(match[1]), headers, received[:length]))
        received = received[length:]
    return replies


class _Recording:
    """A socket that keeps what it received."""

    def __init__(self, under: socket.socket) -> None:
        self._under = under
        self.received = b""

    def recv(self, size: int) -> bytes:
        chunk = self._under.recv(size)
        self.received += chunk
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)


@dataclass(frozen=True)
class State:
    """What must be as before when a fault is over."""

    outcomes: Counter[str]  # terminal outcomes of requests, the scrapes left out
    labels: set[tuple[str, ...]]
    gauges: dict[str, float]


class Live:
    """Args: the process, its temporary folder and the file of its log."""

    def __init__(self, service: ServedProcess, temporary: Path, log: Path) -> None:
        self.service = service
        self.process = service.process
        self.pid = service.process.pid
        self._temporary = temporary
        self._log = log
        self._logged = 0
        self._sockets: list[_Recording] = []
        self.unanswered: Counter[str] = Counter()
        self.late = 0  # requests of this case that may be 504: accepted, and late
        self.before = State(Counter(), set(), {})  # of the case
        self.golden = self._golden()

    # --- talking ------------------------------------------------------------------------------------------------------
    def connect(self) -> Conversation:
        """A connection whose replies are all looked at when the case is over."""
        conversation = self.service.connect()
        recording = _Recording(conversation.socket)
        conversation.socket = recording  # type: ignore[assignment]
        self._sockets.append(recording)
        return conversation

    def say(self, *messages: bytes, wait_s: float = 5.0) -> list[Reply]:
        """Send messages on one connection; all replies until the server closes or falls silent."""
        with self.connect() as conversation:
            for message in messages:
                conversation.send(message)
            return replies_of(conversation.everything(wait_s))

    def post(
        self,
        body: bytes,
        kind: bytes = b"image/png",
        query: bytes = b"",
        path: bytes = b"/classify",
        more: bytes = b"",
    ) -> Reply:
        """One request with a body, on a connection of its own; `more` are lines of its header."""
        head = b"POST " + path + query + b" HTTP/1.1\r\n" + HOST + CLOSE + more
        (reply,) = self.say(
            head + b"Content-Type: " + kind + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body, wait_s=30
        )
        return reply

    def expect_unanswered(self, **outcomes: int) -> None:
        """Requests of this case that end without a reply, by outcome."""
        self.unanswered.update(outcomes)

    def replies(self) -> list[Reply]:
        """Everything that was answered in this case."""
        return [reply for each in self._sockets for reply in replies_of(each.received)]

    # --- looking ------------------------------------------------------------------------------------------------------
    def state(self) -> State:
        """What /metrics says."""
        text = self.service.get("/metrics")[1]
        samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
        outcomes: Counter[str] = Counter()
        for sample in samples:
            if sample.name == "patchserve_requests_total" and sample.labels["route"] != "/metrics":
                outcomes[sample.labels["outcome"]] += int(sample.value)
        labels = {(each.name, *each.labels.values()) for each in samples if each.labels}
        return State(outcomes, labels, {each.name: each.value for each in samples if not each.labels})

    def count(self, name: str, **labels: str) -> float:
        """One number of /metrics, 0 if there is none."""
        families = text_string_to_metric_families(self.service.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return sum(each.value for each in samples if each.name == f"patchserve_{name}" and each.labels == labels)

    def wait_for(self, name: str, value: float) -> None:
        """Until a number without labels has this value, at most five seconds."""
        until = time.monotonic() + 5
        while (now := self.count(name)) != value:
            assert time.monotonic() < until, f"{name} is {now}, not {value}"
            time.sleep(0.01)

    def settle(self) -> None:
        """Wait until the process has nothing to do, at most ten seconds."""
        until = time.monotonic() + 10
        before = self.cpu_s()
        while time.monotonic() < until:
            time.sleep(0.015)
            now = self.cpu_s()
            if now - before < 0.0005:
                return
            before = now

    def cpu_s(self) -> float:
        """CPU seconds of all its threads so far."""
        total_ns = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                total_ns += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
        return total_ns / 1e9

    def memory_mb(self, name: str = "VmRSS") -> float:
        """Resident memory now, or with `VmHWM` the most since `forget_peak`, MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1000

    def forget_peak(self) -> None:
        """Begin to measure the peak of memory anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _golden(self) -> list[dict[str, Any]]:
        body = RAW + CLOSE + b"Content-Length: %d\r\n\r\n" % len(RED) + RED
        (reply,) = replies_of(self.service.say(body))
        document = json.loads(reply.body)
        predictions: list[dict[str, Any]] = document["results"][0]["predictions"]
        return predictions

    # --- the invariants of the catalogue ------------------------------------------------------------------------------
    def check(self, before: State, memory_mb: float) -> None:
        """Everything that must hold after every fault; then forget the case."""
        assert self.process.poll() is None, "the process is gone"
        sockets, self._sockets, unanswered, self.unanswered = self._sockets, [], self.unanswered, Counter()
        after = self._at_rest()
        replies = [reply for each in sockets for reply in replies_of(each.received)]
        ended = after.outcomes - before.outcomes
        told = Counter(reply.code for reply in replies) + unanswered
        assert _agree(ended, told), f"one outcome for each request, not {ended} for {told}"
        for reply in replies:
            assert reply.body in _OWN or not any(word in reply.body for word in _FORBIDDEN), reply.body
        with self._log.open("rb") as log:
            log.seek(self._logged)
            written = log.read()
            self._logged += len(written)
        assert not any(word in written for word in _FORBIDDEN), written
        self._check_labels(after.labels)
        assert self._golden() == self.golden
        assert list(self._temporary.iterdir()) == []
        self._check_memory(memory_mb)

    def _at_rest(self) -> State:
        """The state once nothing is held any more; only the scrape itself is in flight, and its connection open."""
        until = time.monotonic() + 5
        while True:
            state = self.state()
            held = {
                name: state.gauges[f"patchserve_{name}"]
                for name in ("queue_patches", "upload_bytes", "decode_inflight", "inflight_requests")
            }
            if held == {"queue_patches": 0, "upload_bytes": 0, "decode_inflight": 0, "inflight_requests": 1}:
                return state
            assert time.monotonic() < until, f"still held: {held}"
            time.sleep(0.02)

    def _check_labels(self, labels: set[tuple[str, ...]]) -> None:
        for name, *values in labels:
            if name in {"patchserve_requests_total", "patchserve_requests_created"}:
                assert set(values) <= CODES.keys() | ROUTES, values
            elif name in {"patchserve_images_total", "patchserve_images_created"}:
                assert set(values) <= CODES.keys(), values

    def _check_memory(self, before_mb: float) -> None:
        until = time.monotonic() + 3
        while (grown := self.memory_mb() - before_mb) > 50:
            assert time.monotonic() < until, f"{grown:.0f} MB are kept"
            time.sleep(0.05)


def _agree(outcomes: Counter[str], codes: Counter[str]) -> bool:
    """Whether these outcomes in /metrics are those of replies with these codes, of which some are only a status."""
    both = outcomes & codes
    return Counter(str(CODES[each]) for each in (outcomes - both).elements()) == codes - both


def slow_command(model: Path, commands: Path) -> tuple[str, ...]:
    """Runs the service with an engine that does what the file says, see `faulty_engine`."""
    return sys.executable, str(Path(__file__).parents[1] / "faulty_engine.py"), str(model), str(commands)


def replace_text(path: Path, text: str) -> None:
    """At once: a reader sees the old text or the new one."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


@contextmanager
def live_service(
    model: Path, folder: Path, *, prefix: tuple[str, ...] = (), command: tuple[str, ...] = (), **settings: Any
) -> Iterator[Live]:
    """A service with a temporary folder of its own, which must stay empty, and its log in a file."""
    temporary, log = folder / "tmp", folder / "log"
    temporary.mkdir()
    variables = {"TMPDIR": str(temporary), "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "")}
    if command:
        variables["PYTHONPATH"] = str(Path(__file__).parents[2])
    variables = {name: value for name, value in variables.items() if value}
    how: dict[str, Any] = {"variables": variables, "prefix": prefix, "command": command}
    with log.open("w") as stream, served(model, stderr=stream, log_level="info", **how, **settings) as service:
        yield Live(service, temporary, log)
