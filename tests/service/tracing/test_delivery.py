import http.server
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from served_process import served

from service.app import create_app
from service.settings import Settings

from ..conftest import picture

pytestmark = pytest.mark.anyio


class Collector(http.server.ThreadingHTTPServer):
    """What OTLP over HTTP is sent to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()


class _Receiver(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.server.may_answer.wait(20)
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield server
        server.shutdown()
        serving.join()


async def classify(settings: Settings) -> None:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        answer = await client.post("/classify", content=picture(), headers={"Content-Type": "image/png"})
        assert answer.status_code == 200


async def test_what_waits_at_the_end_reaches_the_collector(
    artifact: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-images")
    await classify(Settings(model=artifact, tracing=True, log_level="error"))
    [(path, sent)] = collector.requests
    assert path == "/v1/traces"
    [resource] = sent.resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (named["service.name"], named["patchserve.process"]) == ("shop-images", "all")
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    names = ["POST /classify", "batch", "decode", "inference", "preprocess", "queue", "upload"]
    assert sorted(span.name for span in spans) == names
    by_name = {span.name: span for span in spans}
    assert by_name["batch"].links[0].span_id == by_name["POST /classify"].span_id == by_name["decode"].parent_span_id


async def test_a_collector_that_hangs_harms_neither_requests_nor_the_end(
    artifact: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setattr("service.tracing.opening.FLUSH_S", 0.2)
    collector.may_answer.clear()
    await classify(Settings(model=artifact, tracing=True, log_level="error"))
    sending = [each for each in threading.enumerate() if each.name.startswith("OtelBatch") and each.is_alive()]
    collector.may_answer.set()
    assert sending  # and yet the service has ended
    for each in sending:
        each.join(10)


def test_the_span_of_a_batch_in_the_engine_process_is_linked_to_those_of_requests(
    artifact: Path, collector: Collector, tmp_path: Path
) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    variables = {"PATCHSERVE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    log = tmp_path / "log"
    red = picture()
    head = f"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nContent-Length: {len(red)}\r\n\r\n"
    with (
        log.open("w") as stderr,
        served(artifact, stderr=stderr, variables=variables, http_workers=2, log_level="info") as service,
    ):
        with service.connect() as conversation:
            conversation.send(head.encode() + red)
            assert b" 200 OK" in conversation.reply()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
    by_process = spans_by_process(collector)
    [batch] = by_process["engine"]
    [http] = [spans for name, spans in by_process.items() if name != "engine"]
    [request] = [span for span in http if span.name == "POST /classify"]
    assert [(link.trace_id, link.span_id) for link in batch.links] == [(request.trace_id, request.span_id)]
    [line] = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "request"]
    assert (line["trace_id"], line["span_id"]) == (request.trace_id.hex(), request.span_id.hex())


def spans_by_process(collector: Collector) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for resource in (each for _, sent in collector.requests for each in sent.resource_spans):
        named = {each.key: each.value.string_value for each in resource.resource.attributes}
        found.setdefault(named["patchserve.process"], []).extend(
            s for scope in resource.scope_spans for s in scope.spans
        )
    return found
