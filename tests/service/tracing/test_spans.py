import asyncio
from itertools import pairwise
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from tiny_artifact import MANIFEST

from ..conftest import picture
from .conftest import Tracer

pytestmark = pytest.mark.anyio
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
PNG = {"Content-Type": "image/png"}
STAGES = ["upload", "decode", "preprocess", "queue", "inference"]


def parent(flags: str) -> dict[str, str]:
    return PNG | {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_is_a_span_with_a_span_for_each_stage(traced: Tracer, red: bytes) -> None:
    async with traced() as service:
        await service.client.post("/classify?k=1&max_patches=3", content=red, headers=PNG | {"User-Agent": "secret"})
        [request] = service.spans("POST /classify")
        stages = [span for span in service.spans() if span.parent is not None]
    assert (request.kind, request.parent) == (SpanKind.SERVER, None)
    told = facts(request)
    assert (told["http.request.method"], told["http.route"]) == ("POST", "/classify")
    assert (told["http.response.status_code"], told["patchserve.outcome"]) == (200, "ok")
    assert (told["patchserve.images"], told["patchserve.bytes"]) == (1, len(red))
    assert [span.name for span in stages] == STAGES
    assert {span.parent.span_id for span in stages if span.parent} == {request.context.span_id}
    edges = [
        request.start_time,
        *(time for span in stages for time in (span.start_time, span.end_time)),
        request.end_time,
    ]
    assert all(before <= after for before, after in pairwise(edges))
    assert not {"url.path", "url.query", "user_agent.original", "client.address"} & told.keys()
    assert "secret" not in str([facts(span) for span in [request, *stages]])


async def test_a_batch_is_linked_to_the_requests_in_it(traced: Tracer, red: bytes, blue: bytes) -> None:
    async with traced(engine_lanes=1) as service:
        answers = [service.client.post("/classify", content=each, headers=PNG) for each in [red, blue] * 4]
        await asyncio.gather(*answers)
        requests, batches = service.spans("POST /classify"), service.spans("batch")
    linked = [
        (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for span in batches for link in span.links
    ]
    assert sorted(linked) == sorted(map(ids, requests))
    assert sum(facts(span)["patchserve.images"] for span in batches) == 8
    assert all(len(span.links) == facts(span)["patchserve.images"] for span in batches)
    told = facts(batches[0])
    assert (told["patchserve.model.name"], told["patchserve.model.version"]) == (MANIFEST.name, MANIFEST.version)
    assert told["patchserve.provider"] == "cpu"
    assert told["patchserve.padding"] >= 0
    assert told["patchserve.patches"] > 0


async def test_several_images_have_stages_of_their_own(traced: Tracer, red: bytes, blue: bytes) -> None:
    async with traced() as service:
        files = [("file", red), ("file", b"no image"), ("file", blue)]
        await service.client.post("/classify", files=files)
        inferences = service.spans("inference")
    assert sorted(facts(span)["patchserve.image"] for span in inferences) == [0, 2]


async def test_a_span_belongs_to_the_trace_of_its_caller(traced: Tracer, red: bytes) -> None:
    async with traced() as service:
        await service.client.post("/classify", content=red, headers=parent("01") | {"tracestate": "shop=1"})
        [request] = service.spans("POST /classify")
        [line] = service.lines("request")
    assert ids(request)[0] == TRACE
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.context.trace_state.get("shop") == "1"
    assert (line["trace_id"], line["span_id"]) == ids(request)


async def test_what_the_caller_does_not_sample_is_not_sampled_but_has_its_ids_in_the_log(
    traced: Tracer, red: bytes
) -> None:
    async with traced() as service:
        await service.client.post("/classify", content=red, headers=parent("00"))
        assert service.spans() == []  # no batch either
        [line] = service.lines("request")
    assert line["trace_id"] == TRACE


async def test_the_sampler_is_the_one_of_the_standard_variables(
    traced: Tracer, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with traced() as service:
        await service.client.post("/classify", content=red, headers=PNG)
        assert service.spans() == []
        await service.client.post("/classify", content=red, headers=parent("01"))
        assert len(service.spans("POST /classify")) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "no trace of mine"},
        {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
        {"traceparent": "x" * 20_000},
        {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "secret," * 100},
        {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "SECRET=é\x7f"},
        {"baggage": "secret=1," * 300},
    ],
)
async def test_a_bad_context_harms_nothing_and_is_not_logged(
    traced: Tracer, red: bytes, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    from structlog.testing import CapturingLogger

    from service.tracing.export import quiet_sdk

    quiet_sdk(CapturingLogger())  # type: ignore[arg-type]
    async with traced() as service:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in {**PNG, **headers}.items()]
        assert (await service.client.post("/classify", content=red, headers=raw)).status_code == 200
        assert len(service.spans("POST /classify")) == 1
    assert "secret" not in (service.log + caplog.text).lower()


async def test_a_refused_image_shows_where_it_failed(traced: Tracer) -> None:
    broken = bytearray(picture())
    broken[44:60] = b"no compressed data"[:16]
    async with traced() as service:
        assert (await service.client.post("/classify", content=bytes(broken), headers=PNG)).status_code == 422
        [request] = service.spans("POST /classify")
        [decode] = service.spans("decode")
    assert facts(request)["patchserve.outcome"] == facts(decode)["error.type"] == "invalid_image"
    assert decode.status.status_code == StatusCode.ERROR
    assert request.status.status_code == StatusCode.UNSET  # the client's mistake, by the conventions


async def test_a_failed_run_is_a_failed_batch_and_a_slow_one_a_line(
    traced: Tracer, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.runner import BatchRunner

    async def fail(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0.02)
        raise OSError

    monkeypatch.setattr(BatchRunner, "run", fail)
    async with traced(slow_request_ms=10) as service:
        assert (await service.client.post("/classify", content=red, headers=PNG)).status_code == 500
        [request], [batch] = service.spans("POST /classify"), service.spans("batch")
        [queue] = service.spans("queue")
        [slow] = service.lines("slow_request")
    assert (slow["trace_id"], slow["route"], slow["errors"]) == (ids(request)[0], "/classify", ["internal"])
    assert slow["milliseconds"]["total"] >= 20
    assert [each.status.status_code for each in (request, batch, queue)] == [StatusCode.ERROR] * 3
    assert facts(request)["error.type"] == "internal"


async def test_names_come_from_routes_and_known_methods(traced: Tracer) -> None:
    async with traced() as service:
        await service.client.get("/models/secret")
        await service.client.get("/secret")
        await service.client.request("SECRET", "/classify")
        names = [span.name for span in service.spans()]
        methods = [facts(span)["http.request.method"] for span in service.spans()]
    assert names[:2] == ["GET /models/{name}", "GET unmatched"]
    assert names[2].startswith("HTTP ")
    assert methods[2] == "_OTHER"
    assert "secret" not in str([facts(span) for span in service.spans()]).lower()


async def test_probes_are_not_traced(traced: Tracer) -> None:
    async with traced() as service:
        for path in ("/livez", "/readyz", "/metrics", "/v2/health/ready"):
            await service.client.get(path)
        assert service.spans() == []


async def test_the_open_inference_protocol_is_traced_as_well(traced: Tracer) -> None:
    length = MANIFEST.preprocessing.patch_dim
    document = {
        "inputs": [
            {"name": "patches", "datatype": "UINT8", "shape": [1, 1, length], "data": [0] * length},
            {"name": "grid", "datatype": "INT64", "shape": [1, 2], "data": [1, 1]},
        ]
    }
    async with traced() as service:
        response = await service.client.post(f"/v2/models/{MANIFEST.name}/infer", json=document)
        assert response.status_code == 200, response.text
        [request] = service.spans("POST /v2/models/{name}/infer")
        names = [span.name for span in service.spans() if span.parent is not None]
    assert names == ["upload", "queue", "inference"]
    assert facts(request)["patchserve.patches"] == 1


async def test_metrics_have_the_trace_of_an_example_where_that_can_be_said(traced: Tracer, red: bytes) -> None:
    async with traced() as service:
        await service.client.post("/classify", content=red, headers=parent("00"))
        assert TRACE not in (await _open_metrics(service.client)).text
        await service.client.post("/classify", content=red, headers=parent("01"))
        open_metrics, plain = await _open_metrics(service.client), await service.client.get("/metrics")
    assert f'# {{trace_id="{TRACE}"}}' in open_metrics.text
    assert open_metrics.text.endswith("# EOF\n")
    assert open_metrics.text.count("# EOF") == 1
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert TRACE not in plain.text
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def _open_metrics(client: httpx.AsyncClient) -> httpx.Response:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3"
    return await client.get("/metrics", headers={"Accept": accept})
