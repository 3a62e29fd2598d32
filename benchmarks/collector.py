"""Something that OTLP over HTTP can be sent to: counts spans and drops them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as with a real one

    def __init__(self, spans: list[int], *arguments: Any) -> None:
        self._spans = spans
        super().__init__(*arguments)

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        self._spans.append(sum(len(scope.spans) for each in sent.resource_spans for scope in each.scope_spans))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: it would be a line an export."""


@contextmanager
def collecting(port: int) -> Iterator[list[int]]:
    """Listen on this machine alone; yields the number of spans of each export so far."""
    spans: list[int] = []
    with ThreadingHTTPServer(("127.0.0.1", port), partial(_Receiver, spans)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield spans
        finally:
            server.shutdown()
