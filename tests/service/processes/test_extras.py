"""Attention and features from the engine process, through the client, and under the Open Inference Protocol."""

import asyncio
from collections.abc import Iterator
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image
from served_process import ServedProcess, served
from tiny_artifact import MANIFEST, write_artifact

from service.client import AsyncClient, Client
from tests.service.test_explain import half_lit

UPLOAD = half_lit((32, 16))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    path = write_artifact(tmp_path_factory.mktemp("model") / "explained.onnx", attention=True)
    with served(path, http_workers=2, default_timeout_ms=10_000) as process:
        yield process


@pytest.fixture
def url(service: ServedProcess) -> str:
    return f"http://127.0.0.1:{service.port}"


def test_a_client_gets_explanations_and_features(url: str) -> None:
    with Client(url) as client:
        plain, explained = client.classify(UPLOAD, k=2), client.explain(UPLOAD, k=2)
        assert explained.predictions == plain.predictions
        shares = np.array(explained.attention)
        assert (shares.shape, explained.grid, explained.region) == ((4, 8), (4, 8), (0, 0, 32, 16))
        assert shares.sum() == pytest.approx(1)
        assert shares[:, :4] / shares[:, 4:] == pytest.approx(3, rel=0.001)
        assert client.embed(UPLOAD).embedding == pytest.approx([3**-0.5] * 3, abs=1e-6)
        assert client.embed(UPLOAD, normalize=False).embedding == pytest.approx([80 / 255] * 3, abs=1e-6)
        with pytest.raises(TypeError, match="no such option: k"):
            client.embed(UPLOAD, k=1)  # type: ignore[call-arg]


def test_the_asynchronous_client_gets_the_same(url: str) -> None:
    async def ask() -> tuple[float, ...]:
        async with AsyncClient(url) as client:
            assert (await client.explain(UPLOAD, max_patches=2)).grid == (1, 2)
            return (await client.embed(UPLOAD)).embedding

    assert len(asyncio.run(ask())) == 3


def test_a_picture_comes_from_an_http_process(url: str) -> None:
    headers = {"accept": "image/png", "content-type": "image/png"}
    reply = httpx.post(f"{url}/explain", content=UPLOAD, headers=headers)
    assert (reply.status_code, Image.open(BytesIO(reply.content)).size) == (200, (32, 16))


def test_the_protocol_has_the_output(url: str) -> None:
    model = f"{url}/v2/models/{MANIFEST.name}"
    outputs = {each["name"]: each["shape"] for each in httpx.get(model).json()["outputs"]}
    assert outputs == {"probabilities": [-1, 3], "attention": [-1, -1]}
    patches = np.full((2, 6, 48), 9).tolist()
    document = {
        "inputs": [
            {"name": "patches", "datatype": "UINT8", "shape": [2, 6, 48], "data": patches},
            {"name": "grid", "datatype": "INT64", "shape": [2, 2], "data": [[2, 3], [1, 2]]},
        ],
        "outputs": [{"name": "attention"}],
    }
    [found] = httpx.post(f"{model}/infer", json=document).json()["outputs"]
    assert (found["name"], found["shape"]) == ("attention", [2, 6])
    assert found["data"] == pytest.approx([1 / 6] * 6 + [0.5, 0.5, 0, 0, 0, 0])
