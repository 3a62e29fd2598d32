import io
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.app import create_app
from service.logs import LossyStream, open_log
from service.settings import Settings
from service.tracing.spans import Tracing


class Traced:
    """A service in this process with everything that it tells."""

    def __init__(self, client: httpx.AsyncClient, exporter: InMemorySpanExporter, text: io.StringIO) -> None:
        self.client = client
        self._exporter = exporter
        self._text = text

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """Those that have ended, in the order of their beginning."""
        found = [span for span in self._exporter.get_finished_spans() if name in {None, span.name}]
        return sorted(found, key=lambda span: span.start_time or 0)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Of the log."""
        return [line for line in map(json.loads, self._text.getvalue().splitlines()) if line["event"] == event]

    @property
    def log(self) -> str:
        return self._text.getvalue()


Tracer = Callable[..., AbstractAsyncContextManager[Traced]]


@pytest.fixture
def traced(artifact: Path) -> Tracer:
    """`async with traced(slow_request_ms=1) as service`."""

    @asynccontextmanager
    async def serve(**settings: Any) -> AsyncIterator[Traced]:
        exporter, text = InMemorySpanExporter(), io.StringIO()
        chosen = Settings(model=artifact, **settings)
        app = create_app(
            chosen,
            log=open_log(chosen, LossyStream(text), is_terminal=False),
            tracing=Tracing(SimpleSpanProcessor(exporter), time.monotonic),
        )
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as client,
        ):
            yield Traced(client, exporter, text)

    return serve
