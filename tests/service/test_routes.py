import re

import pytest
from tiny_artifact import MANIFEST

from service.app import create_app
from service.errors import StartError
from service.settings import Settings

from .conftest import Serving

pytestmark = pytest.mark.anyio


async def test_probes_answer(serving: Serving) -> None:
    async with serving() as client:
        for path in ("/livez", "/readyz"):
            assert (await client.get(path)).json() == {"status": "ok"}
            assert (await client.head(path)).status_code == 200


async def test_before_its_start_the_service_is_alive_but_not_ready(artifact: object) -> None:
    import httpx

    app = create_app(Settings(model=artifact, log_level="error"))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        assert (await client.get("/livez")).status_code == 200
        for response in (await client.get("/readyz"), await client.post("/classify")):
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
            assert response.headers["retry-after"] == "1"


async def test_models_are_described(serving: Serving) -> None:
    async with serving() as client:
        [summary] = (await client.get("/models")).json()["models"]
        assert (summary["name"], summary["classes"], summary["state"]) == (MANIFEST.name, 3, "ready")
        document = (await client.get(f"/models/{MANIFEST.name}")).json()
    assert document["manifest"]["labels"] == list(MANIFEST.labels)
    assert document["digest"] == summary["digest"]


@pytest.mark.parametrize(
    "name",
    ["..%2f..%2fetc%2fpasswd", "%00", "other", "%2Fetc%2Fpasswd", "x" * 4096, "tiny-c%D0%BElours", "TINY-COLOURS", ""],
)
async def test_any_other_model_name_is_404(serving: Serving, name: str) -> None:
    async with serving() as client:
        response = await client.get(f"/models/{name}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/nothing", "/classify/", "/../../etc/passwd", "/docs/x"])
async def test_any_other_path_is_404_without_an_echo(serving: Serving, path: str) -> None:
    async with serving() as client:
        response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert "passwd" not in response.text


async def test_the_schema_describes_bodies_parameters_and_problems(serving: Serving) -> None:
    async with serving() as client:
        schema = (await client.get("/openapi.json")).json()
    classify = schema["paths"]["/classify"]["post"]
    assert classify["requestBody"]["content"].keys() == {"multipart/form-data", "image/*"}
    parameters = {each["name"]: each["schema"].get("anyOf", [each["schema"]])[0] for each in classify["parameters"]}
    assert parameters.keys() == {"model", "k", "max_patches", "timeout_ms", "allow_degraded"}
    assert parameters["allow_degraded"]["type"] == "boolean"
    assert (parameters["k"]["minimum"], parameters["k"]["maximum"]) == (1, 100)
    assert {"200", "400", "408", "413", "415", "422", "429", "500", "503", "504"} <= classify["responses"].keys()
    assert list(classify["responses"]["422"]["content"]) == ["application/problem+json"]


async def test_metrics_have_bounded_labels(serving: Serving) -> None:
    async with serving() as client:
        for path in ("/a", "/b", "/models/x", "/models/y"):
            await client.get(path)
        text = (await client.get("/metrics")).text
    routes = set(re.findall(r'requests_total\{.*route="([^"]*)"', text))
    assert routes == {"unmatched", "/models/{name}"}


@pytest.mark.parametrize("setting", ["max_batch_patches", "max_queue_patches", "max_timeout_ms"])
def test_bounds_below_one_request_stop_the_start(artifact: object, setting: str) -> None:
    with pytest.raises(StartError, match=setting.replace("_", "-")):
        create_app(Settings(**{"model": artifact, setting: 99}))  # type: ignore[arg-type]
