import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider

from service.calls.context import trace_headers
from service.client import AsyncClient, Client

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("test")


def replies(seen: list[str | None]) -> Callable[[httpx.Request], httpx.Response]:
    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("traceparent"))
        return httpx.Response(200, json={"models": []})

    return reply


def test_a_call_says_which_trace_it_belongs_to() -> None:
    seen: list[str | None] = []
    with Client("http://t", transport=httpx.MockTransport(replies(seen))) as client:
        client.models()
        with TRACER.start_as_current_span("work") as span:
            client.models()
            [*_] = client.classify_many([b"\xff\xd8\xff"], concurrency=1)  # in a thread; its reply is of no interest
    context = span.get_span_context()
    said = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert seen == [None, said, said]


@pytest.mark.anyio
async def test_an_asynchronous_call_as_well() -> None:
    seen: list[str | None] = []
    async with AsyncClient("http://t", transport=httpx.MockTransport(replies(seen))) as client:
        with TRACER.start_as_current_span("work"):
            await client.models()
            [_ async for _ in client.classify_many([b"\xff\xd8\xff"])]
    assert seen[0] is not None
    assert seen == [seen[0]] * 2


def test_the_client_does_not_import_what_makes_traces() -> None:
    program = (
        "import sys, httpx; from service.client import Client\n"
        "reply = httpx.MockTransport(lambda _: httpx.Response(200, json={'models': []}))\n"
        "Client('http://t', transport=reply).models()\n"
        "print('opentelemetry' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ended.stdout == "False\n"


def test_a_context_is_not_shared_among_calls() -> None:
    with TRACER.start_as_current_span("work"), ThreadPoolExecutor(1) as pool:
        inside = pool.submit(copy_context().run, trace_headers).result()
        outside = pool.submit(trace_headers).result()
    assert (set(inside), outside) == ({"traceparent"}, {})
