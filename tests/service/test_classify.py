import asyncio
import gc
import json
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from photos import jpeg, photo
from prometheus_client.parser import text_string_to_metric_families
from tiny_artifact import MANIFEST, write_artifact

from model.headers import ImageLimits
from model.manifest import Accuracy
from model.preprocess import preprocess
from service.engine import Engine
from service.errors import EngineError
from service.pipeline import LocalMemory
from service.settings import EngineSettings

from .conftest import Serving, picture

pytestmark = pytest.mark.anyio

MEMBERS = {"type", "title", "status", "code", "detail", "request_id"}


async def classify(client: httpx.AsyncClient, *uploads: bytes, query: str = "") -> httpx.Response:
    files = [("file", ("name.jpg", upload, "image/jpeg")) for upload in uploads]
    return await client.post(f"/classify{query}", files=files)


async def metrics(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    text = (await client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (sample.name.removeprefix("patchserve_"), *sorted(sample.labels.values())): sample.value for sample in samples
    }


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a reply that must be a problem document."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document.keys() == MEMBERS
    assert document["status"] == response.status_code
    assert document["request_id"] == response.headers["x-request-id"]
    return response.status_code, document["code"]


async def test_an_image_gets_its_label(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        response = await classify(client, red)
    assert response.status_code == 200
    document = response.json()
    assert document.keys() == {"model", "results", "timing_ms", "request_id"}
    assert document["model"].keys() == {"name", "version", "digest"}
    assert document["timing_ms"].keys() == {"upload", "decode", "preprocess", "queue", "inference", "total"}
    [result] = document["results"]
    assert [each["label"] for each in result["predictions"]] == ["red", "green", "blue"]
    assert sum(each["score"] for each in result["predictions"]) == pytest.approx(1)
    del result["predictions"]
    assert result == {"patches": 49, "grid": [7, 7], "width": 28, "height": 28, "format": "PNG", "degraded": False}
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_a_raw_body_is_one_image_whatever_its_type_claims(serving: Serving, kind: str) -> None:
    async with serving() as client:
        response = await client.post(
            "/classify", content=picture(kind=kind), headers={"content-type": "image/x-made-up"}
        )
    assert response.json()["results"][0]["format"] == kind


async def test_several_uploads_answer_in_order_and_a_bad_one_fails_alone(
    serving: Serving, red: bytes, blue: bytes
) -> None:
    async with serving() as client:
        alone = [(await classify(client, upload)).json()["results"][0] for upload in (red, blue)]
        response = await classify(client, red, b"no image", b"", blue)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [results[0], results[3]] == alone
    assert [results[place]["error"]["code"] for place in (1, 2)] == ["invalid_image", "invalid_image"]
    assert results[1]["error"].keys() == MEMBERS - {"request_id"}


async def test_images_of_one_request_share_a_batch(serving: Serving) -> None:
    sizes = [(28, 28), (40, 20), (12, 60), (64, 64)]
    async with serving(engine_lanes=1, batch_overhead_patches=256) as client:
        response = await classify(client, *[picture(size=size) for size in sizes])
        seen = await metrics(client)
    patches = [result["patches"] for result in response.json()["results"]]
    assert len(set(patches)) > 1
    assert seen["batches_total", "ok"] == 1
    assert seen["batch_images_sum",] == 4
    assert seen["batch_patches_sum",] == sum(patches)
    assert seen["batch_padding_ratio_sum",] == pytest.approx(1 - sum(patches) / (4 * max(patches)))


async def test_k_and_max_patches_are_obeyed(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        [result] = (await classify(client, red, query="?k=1&max_patches=10")).json()["results"]
    assert len(result["predictions"]) == 1
    assert result["patches"] <= 10


@pytest.mark.parametrize(
    "query",
    [
        *[
            f"k={value}"
            for value in ("0", "-1", "4", "101", "1e3", "abc", "", "9" * 400, "٣", "+1", "1_0", "1.0", "%00")
        ],
        *[f"max_patches={value}" for value in ("0", "-5", "many")],
        *[f"timeout_ms={value}" for value in ("0", "-1", "nan", "inf", "30001", "1" + "0" * 12)],
        "top_k=3",
        "k=1&unknown=secret",
    ],
)
async def test_a_bad_parameter_is_422_and_is_not_echoed(serving: Serving, red: bytes, query: str) -> None:
    async with serving() as client:
        response = await classify(client, red, query=f"?{query}")
        assert problem(response) == (422, "invalid_parameter")
        assert problem(await classify(client, red, query="?k=secret-value"))
    assert "secret" not in response.text
    assert response.json()["detail"] == "A query parameter is unknown or out of its range; /docs lists them."


async def test_of_a_parameter_that_comes_twice_the_last_counts(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        [result] = (await classify(client, red, query="?k=3&k=2&k=1")).json()["results"]
    assert len(result["predictions"]) == 1


async def test_the_short_way_answers_as_the_route_does(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        short = (await classify(client, red, query="?k=2")).json()
        tracking = client._transport.app.middleware_stack  # type: ignore[attr-defined]
        tracking._app = tracking._app._app
        long = (await classify(client, red, query="?k=2")).json()
        refused = await classify(client, red, query="?k=2&k=0")
        seen = await metrics(client)
    assert short["results"] == long["results"]
    assert problem(refused) == (422, "invalid_parameter")
    assert seen["requests_total", "/classify", "ok"] == 2


@pytest.mark.parametrize(
    ("upload", "expected"),
    [
        (b"", (422, "invalid_image")),
        (b"\xff\xd8\xff", (422, "invalid_image")),
        (b"<html>secret</html> and more", (415, "unsupported_media_type")),
        (b"%!PS-Adobe-3.0 EPSF-3.0 secret", (415, "unsupported_media_type")),
        (picture()[:-20], (422, "invalid_image")),
        (picture(size=(300, 1)), (422, "image_too_large")),
    ],
)
async def test_the_error_of_the_only_upload_is_the_reply(
    serving: Serving, upload: bytes, expected: tuple[int, str]
) -> None:
    async with serving() as client:
        response = await classify(client, upload)
    assert problem(response) == expected
    assert "secret" not in response.text


async def test_limits_are_in_the_sentence(serving: Serving) -> None:
    async with serving(max_side=50) as client:
        response = await classify(client, picture(size=(51, 51)))
        assert problem(response) == (422, "image_too_large")
        assert "side over 50 pixels" in response.json()["detail"]
    async with serving(max_body_bytes=100) as client:
        response = await classify(client, picture(size=(51, 51)))
        assert problem(response) == (413, "body_too_large")
        assert "100 bytes" in response.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (415, "unsupported_media_type")),
        ({"content-type": "application/json"}, (415, "unsupported_media_type")),
        ({"content-type": "image/png", "content-encoding": "gzip"}, (415, "unsupported_media_type")),
        ({"content-type": "multipart/form-data"}, (400, "bad_multipart")),
        ({"content-type": "multipart/form-data; boundary=other"}, (400, "bad_multipart")),
    ],
)
async def test_bodies_that_are_not_understood(
    serving: Serving, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    async with serving() as client:
        assert problem(await client.post("/classify", content=b"{}", headers=headers)) == expected


async def test_two_content_types_are_refused(serving: Serving) -> None:
    async with serving() as client:
        headers = [("content-type", "image/png"), ("content-type", "image/jpeg")]
        assert problem(await client.post("/classify", content=picture(), headers=headers)) == (400, "bad_request")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_other_methods(serving: Serving, method: str) -> None:
    async with serving() as client:
        response = await client.request(method, "/classify")
    assert problem(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_a_harmless_request_id_is_kept_and_any_other_replaced(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        for given, kept in [("abc-1.2_3", True), ("a b", False), ("x" * 65, False), ("<script>", False), ("", False)]:
            response = await client.post(
                "/classify", content=red, headers={"content-type": "image/png", "x-request-id": given}
            )
            assert (response.headers["x-request-id"] == given) == kept
            assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("timeout_ms", [2000, 1])
async def test_patches_are_let_go_with_the_answer_and_not_by_the_collector(
    serving: Serving, red: bytes, monkeypatch: pytest.MonkeyPatch, timeout_ms: int
) -> None:
    places: list[weakref.ref[NDArray[np.uint8]]] = []

    def take(_: LocalMemory, patches: int) -> NDArray[np.uint8]:
        array = np.empty((patches, MANIFEST.preprocessing.patch_dim), np.uint8)
        places.append(weakref.ref(array))
        return array

    monkeypatch.setattr(LocalMemory, "take", take)
    gc.disable()
    try:
        async with serving() as client:
            for _ in range(20):
                await client.post(
                    f"/classify?timeout_ms={timeout_ms}", content=red, headers={"content-type": "image/png"}
                )
            await asyncio.sleep(0.1)  # the decode thread may hold the last one for a moment
            assert [place() for place in places] == [None] * len(places)
    finally:
        gc.enable()


class HeldEngine(Engine):
    """An engine whose runs wait for the test."""

    def __init__(self, path: Path) -> None:
        super().__init__(EngineSettings(model=path, engine_lanes=1))
        self.may_run = threading.Event()
        self.may_run.set()
        self.runs = 0

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        self.runs += 1
        assert self.may_run.wait(10)
        return super().run(patches, grid, alone=alone)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not await condition():  # noqa: ASYNC110 - the state is behind HTTP
            await asyncio.sleep(0.005)


async def test_a_deadline_that_passes_in_the_engine_is_504(serving: Serving, artifact: Path, red: bytes) -> None:
    engine = HeldEngine(artifact)
    async with serving(engine) as client:
        engine.may_run.clear()
        assert problem(await classify(client, red, query="?timeout_ms=50")) == (504, "deadline_exceeded")
        engine.may_run.set()
        assert (await classify(client, red)).status_code == 200
        seen = await metrics(client)
    assert seen["queue_patches",] == seen["decode_inflight",] == 0


async def test_what_is_over_the_bound_is_refused_at_once(serving: Serving, artifact: Path, red: bytes) -> None:
    engine = HeldEngine(artifact)
    async with serving(engine, max_queue_patches=100, max_batch_patches=100) as client:
        engine.may_run.clear()
        burst = [asyncio.create_task(classify(client, red)) for _ in range(8)]
        done, accepted = await asyncio.wait(burst, timeout=0.5)
        assert len(accepted) == 2, "49 patches each: two fit into 100"
        for task in done:
            response = task.result()
            assert problem(response) == (429, "overloaded")
            assert 1 <= int(response.headers["retry-after"]) <= 60
        assert (await client.get("/livez")).status_code == (await client.get("/readyz")).status_code == 200
        engine.may_run.set()
        assert [(await task).status_code for task in accepted] == [200, 200]
        seen = await metrics(client)
    assert seen["requests_total", "/classify", "ok"] == 2
    assert seen["requests_total", "/classify", "overloaded"] == 6
    assert seen["queue_patches",] == seen["inflight_requests",] - 1 == 0  # the scrape itself is in flight


async def test_a_full_house_refuses_before_the_body_is_read(serving: Serving, artifact: Path, red: bytes) -> None:
    engine = HeldEngine(artifact)
    read = 0

    async def body() -> Any:
        nonlocal read
        read += 1
        yield red

    async with serving(engine, max_queue_patches=100, max_batch_patches=100) as client:
        engine.may_run.clear()
        filling = asyncio.create_task(classify(client, picture(size=(40, 40))))
        await until(lambda: _reads(client, "queue_patches", 100))
        response = await client.post("/classify", content=body(), headers={"content-type": "image/png"})
        assert problem(response) == (429, "overloaded")
        assert read == 0
        engine.may_run.set()
        assert (await filling).status_code == 200


async def test_requests_that_wait_together_share_a_batch_and_get_what_they_get_alone(
    serving: Serving, artifact: Path
) -> None:
    engine = HeldEngine(artifact)
    pictures = [
        picture((200, 30 * place, 10), size) for place, size in enumerate([(28, 28), (40, 20), (12, 60), (64, 64)])
    ]
    async with serving(engine, batch_overhead_patches=256) as client:
        alone = [(await classify(client, each)).json()["results"] for each in pictures]
        runs = engine.runs
        engine.may_run.clear()
        blocker = asyncio.create_task(classify(client, pictures[0]))
        await until(lambda: _runs(engine, runs + 1))
        waiting = [asyncio.create_task(classify(client, each)) for each in pictures]
        await until(lambda: _reads(client, "queue_patches", 49 + sum(each[0]["patches"] for each in alone)))
        await until(lambda: _reads(client, "decode_inflight", 0))
        engine.may_run.set()
        assert [(await task).json()["results"] for task in waiting] == alone
        await blocker
        assert engine.runs == runs + 2
        assert (await metrics(client))["batch_images_sum",] == 4 + 1 + 4


async def _reads(client: httpx.AsyncClient, name: str, value: float) -> bool:
    return (await metrics(client))[name,] == value


class PoisonedEngine(Engine):
    """An engine that fails on any batch that holds a blue image, and knows no green."""

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        plain = (patches[:, 0, :3] == patches[:, 0, 3:6]).all(axis=1)  # the golden image is not
        colours = patches[:, 0, :3].argmax(axis=1) * (patches[:, 0].any(axis=1) & plain)
        if (colours == 2).any():
            raise EngineError("blue")
        logits = super().run(patches, grid, alone=alone)
        logits[colours == 1] = np.nan
        return logits


async def test_an_image_that_breaks_the_engine_fails_alone(
    serving: Serving, artifact: Path, red: bytes, blue: bytes
) -> None:
    green = picture((10, 200, 10))
    engine = PoisonedEngine(EngineSettings(model=artifact))
    async with serving(engine, log_level="error") as client:
        alone = (await classify(client, red)).json()["results"][0]
        results = (await classify(client, red, blue, red, green, red)).json()["results"]
        assert [results[place] for place in (0, 2, 4)] == [alone] * 3
        assert [results[place]["error"]["code"] for place in (1, 3)] == ["internal", "internal"]
        assert problem(await classify(client, blue)) == (500, "internal")


class RecordingEngine(Engine):
    """An engine that keeps the patches it is given."""

    def __init__(self, path: Path) -> None:
        super().__init__(EngineSettings(model=path))
        self.patches: list[NDArray[np.uint8]] = []

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        self.patches.append(patches.copy())
        return super().run(patches, grid, alone=alone)


@pytest.mark.parametrize("exact", [True, False])
async def test_the_engine_gets_the_pixels_that_were_chosen(serving: Serving, artifact: Path, exact: bool) -> None:
    data = jpeg(photo(600, 400))  # decoded at 1/2 or less, and resized, unless exact
    spec = replace(MANIFEST.preprocessing, max_patches=99)
    expected = preprocess(data, spec, ImageLimits(), exact=exact).patches
    engine = RecordingEngine(artifact)
    async with serving(engine, exact_decode=exact) as client:
        assert (await classify(client, data, query="?max_patches=99")).status_code == 200
    assert np.array_equal(engine.patches[-1][0][: len(expected)], expected)
    other = preprocess(data, spec, ImageLimits(), exact=not exact).patches
    assert not np.array_equal(other, expected)


async def test_a_bug_is_a_problem_document_too(serving: Serving, red: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    async with serving() as client:
        monkeypatch.setattr("service.decoding.steps.cut", broken)
        response = await classify(client, red)
        assert problem(response) == (500, "internal")
        monkeypatch.setattr("service.classify.read_uploads", broken)
        response = await classify(client, red)
        assert problem(response) == (500, "internal")
    assert "secret" not in response.text


async def test_a_client_that_leaves_frees_its_place_and_is_never_run(
    serving: Serving, artifact: Path, red: bytes
) -> None:
    engine = HeldEngine(artifact)
    async with serving(engine) as client:
        app = client._transport.app  # type: ignore[attr-defined]
        engine.may_run.clear()
        first = asyncio.create_task(classify(client, red))
        await until(lambda: _runs(engine, 4))  # three of the warm-up
        leave = asyncio.Event()
        sent: list[Any] = []
        second = asyncio.create_task(_leaving_client(app, red, leave, sent))
        await until(lambda: _reads(client, "queue_patches", 98))
        leave.set()
        await second
        assert (await metrics(client))["queue_patches",] == 49
        engine.may_run.set()
        assert (await first).status_code == 200
        seen = await metrics(client)
    assert engine.runs == 4
    assert seen["requests_total", "/classify", "client_closed"] == 1
    assert seen["queue_patches",] == 0


async def _runs(engine: HeldEngine, count: int) -> bool:
    return engine.runs >= count


async def _leaving_client(app: Any, body: bytes, leave: asyncio.Event, sent: list[Any]) -> None:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "query_string": b"",
        "headers": [(b"content-type", b"image/png"), (b"content-length", str(len(body)).encode())],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
    }
    await app(scope, receive, send)


async def test_every_request_leaves_one_line_without_anything_of_the_client(
    serving: Serving, red: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(log_level="info") as client:
        await classify(client, red)
        await client.get("/secret-path?secret=1", headers={"x-secret": "secret"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["route"], line["status"], line["outcome"]) for line in lines] == [
        ("/classify", 200, "ok"),
        ("unmatched", 404, "not_found"),
    ]
    assert "secret" not in json.dumps(lines)
    assert "name.jpg" not in json.dumps(lines)


async def test_under_load_images_get_fewer_patches_and_callers_are_told(serving: Serving, tmp_path: Path) -> None:
    curve = Accuracy("a set", ((50, 0.88), (100, 0.90)))
    engine = HeldEngine(write_artifact(tmp_path / "measured.onnx", replace(MANIFEST, accuracy=curve)))
    large = picture(size=(400, 400))
    async with serving(engine, brown_out_wait_ms=1, default_timeout_ms=20_000) as client:
        before = (await classify(client, large)).json()["results"][0]
        assert (before["patches"], before["degraded"]) == (100, False)
        engine.may_run.clear()
        held = [asyncio.create_task(classify(client, large)) for _ in range(40)]
        await until(lambda: _reads(client, "brown_out_level", 2))
        engine.may_run.set()
        await asyncio.gather(*held)
        degraded = (await classify(client, large)).json()["results"][0]
        assert (degraded["patches"], degraded["degraded"]) == (49, True)
        refused = (await classify(client, large, query="?allow_degraded=false")).json()["results"][0]
        assert refused == before
        small = (await classify(client, picture(size=(28, 28)))).json()["results"][0]
        assert (small["patches"], small["degraded"]) == (49, False)
        levels = (await client.get("/models/tiny-colours")).json()["brown_out"]
        assert [level["max_patches"] for level in levels] == [100, 75, 50]
        assert levels[1]["top1"] == pytest.approx(0.89)
        assert (await metrics(client))["degraded_images_total",] >= 1


@pytest.mark.parametrize("value", ["", "1", "yes", "True", "none"])
async def test_allow_degraded_is_true_or_false(serving: Serving, red: bytes, value: str) -> None:
    async with serving() as client:
        assert problem(await classify(client, red, query=f"?allow_degraded={value}")) == (422, "invalid_parameter")
