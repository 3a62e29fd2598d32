import os
from pathlib import Path

import httpx
import pytest
from infer_bodies import json_images, json_patches
from tiny_artifact import LABELS, MANIFEST, renamed, write_artifact

from model.headers import ImageLimits
from model.preprocess import preprocess
from service.app import create_app
from service.keys import digest_of
from service.settings import Settings
from tests.service.conftest import Serving

pytestmark = pytest.mark.anyio

MODEL = f"/v2/models/{MANIFEST.name}"
VERSION = f"{MODEL}/versions/{MANIFEST.version}"
HEALTH = ["/v2/health/live", "/v2/health/ready"]


async def test_health(serving: Serving) -> None:
    async with serving() as client:
        assert (await client.get(HEALTH[0])).json() == {"live": True}
        assert (await client.get(HEALTH[1])).json() == {"ready": True}
        for path in (MODEL, VERSION):
            assert (await client.get(f"{path}/ready")).json() == {"name": MANIFEST.name, "ready": True}


async def test_before_its_start_the_service_is_alive_but_not_ready(artifact: Path) -> None:
    app = create_app(Settings(model=artifact, log_level="error"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        assert (await client.get(HEALTH[0])).status_code == 200
        for response in (
            await client.get(HEALTH[1]),
            await client.get(f"{MODEL}/ready"),
            await client.post(f"{MODEL}/infer", json=json_images(b"")),
        ):
            assert (response.status_code, response.json()) == (503, {"error": "The service is starting."})
            assert response.headers["retry-after"] == "1"


async def test_the_service_and_its_models_are_described(serving: Serving) -> None:
    async with serving() as client:
        server = (await client.get("/v2")).json()
        model = (await client.get(MODEL)).json()
        assert (await client.get(VERSION)).json() == model
        index = (await client.post("/v2/repository/index", json={"ready": True})).json()
    assert server["name"] == "patchserve"
    assert server["extensions"] == ["binary_tensor_data", "classification", "model_repository(index)"]
    assert (model["name"], model["versions"], model["platform"]) == ("tiny-colours", ["1.0.0"], "onnxruntime_onnx")
    assert model["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
        {"name": "patches", "datatype": "UINT8", "shape": [-1, -1, 48]},
        {"name": "grid", "datatype": "INT64", "shape": [-1, 2]},
    ]
    assert model["outputs"] == [
        {"name": name, "datatype": "FP32", "shape": [-1, len(LABELS)]} for name in ("logits", "probabilities")
    ]
    assert index == [{"name": "tiny-colours", "version": "1.0.0", "state": "READY", "reason": ""}]


async def test_versions_are_listed_with_the_newest_first(serving: Serving, tmp_path: Path) -> None:
    for version in ("1.9", "1.10"):
        write_artifact(tmp_path / f"{version}.onnx", renamed(version=version))
    async with serving(model=tmp_path) as client:
        assert (await client.get(MODEL)).json()["versions"] == ["1.10", "1.9"]
        assert (await client.get(f"{MODEL}/versions/1.9")).status_code == 200
        assert (await client.get(f"{MODEL}/versions/1")).status_code == 404
        assert len((await client.post("/v2/repository/index")).json()) == 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", f"{MODEL}/versions/..%2f1", 404),
        ("GET", f"{MODEL}/infer", 405),
        ("POST", "/v2", 405),
        ("GET", f"{MODEL}/config", 400),
        ("GET", f"{VERSION}/stats", 400),
        ("POST", f"{MODEL}/generate", 400),
        ("POST", "/v2/repository/models/x/load", 400),
        ("POST", "/v2/repository/models/x/unload", 400),
        ("GET", "/v2/systemsharedmemory/status", 400),
        ("POST", "/v2/cudasharedmemory/region/x/register", 400),
        ("GET", "/v2/logging", 400),
        ("POST", "/v2/trace/setting", 400),
    ],
)
async def test_what_there_is_not_is_refused_in_the_words_of_the_protocol(
    serving: Serving, method: str, path: str, status: int
) -> None:
    async with serving() as client:
        response = await client.request(method, path)
    assert (response.status_code, response.json().keys()) == (status, {"error"})
    assert response.headers["content-type"] == "application/json"


async def test_keys_are_wanted_as_elsewhere_but_not_by_probes(serving: Serving, red: bytes) -> None:
    key = os.urandom(8).hex()
    async with serving(api_keys=f"me:user:{digest_of(key.encode()).hex()}") as client:
        for path in HEALTH:
            assert (await client.get(path)).status_code == 200
        response = await client.post(f"{MODEL}/infer", json=json_images(red))
        assert (response.status_code, response.json().keys()) == (401, {"error"})
        assert response.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/v2")).status_code == 401
        allowed = await client.post(f"{MODEL}/infer", json=json_images(red), headers={"Authorization": f"Bearer {key}"})
        assert allowed.status_code == 200


async def test_the_schema_describes_a_request_that_works(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        schema = (await client.get("/openapi.json")).json()
    infer = schema["paths"]["/v2/models/{name}/infer"]["post"]
    assert infer["requestBody"]["content"].keys() == {"application/json", "application/octet-stream"}
    assert {each["name"] for each in infer["parameters"]} == {"name", "Inference-Header-Content-Length"}
    document = infer["requestBody"]["content"]["application/json"]["schema"]
    assert "$" not in str(document), "a reference would point outside of the document"
    assert document["properties"]["inputs"]["items"]["properties"]["name"]["enum"] == ["image", "patches", "grid"]
    sequence = preprocess(red, MANIFEST.preprocessing, ImageLimits())
    assert json_patches(sequence.patches[None], [sequence.grid]).keys() <= document["properties"].keys()
