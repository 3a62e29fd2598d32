"""The stock client of Triton against a running service."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from infer_bodies import in_base64
from served_process import ServedProcess, served
from tiny_artifact import LABELS, MANIFEST
from tritonclient import http, utils

from model.headers import ImageLimits
from model.preprocess import preprocess
from tests.service.conftest import picture

SPEC = MANIFEST.preprocessing
NAME = MANIFEST.name
FILES = [picture((220, 20, 20)), picture((20, 20, 220), (60, 20))]


@pytest.fixture(scope="module")
def service(artifact: Path) -> Iterator[ServedProcess]:
    with served(artifact) as service:
        yield service


@pytest.fixture
def client(service: ServedProcess) -> Iterator[Any]:
    with http.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        yield client


def image_input(*files: bytes, binary: bool = True, column: bool = False) -> Any:
    values = np.array(files if binary else in_base64(*files), object)
    values = values[:, None] if column else values
    tensor = http.InferInput("image", list(values.shape), "BYTES")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def patch_inputs(*files: bytes, binary: bool = True) -> list[Any]:
    sequences = [preprocess(file, SPEC, ImageLimits()) for file in files]
    patches = np.zeros((len(files), max(len(each.patches) for each in sequences), SPEC.patch_dim), np.uint8)
    for place, each in enumerate(sequences):
        patches[place, : len(each.patches)] = each.patches
    grid = np.array([each.grid for each in sequences], np.int64)
    inputs = [
        http.InferInput("patches", list(patches.shape), "UINT8"),
        http.InferInput("grid", list(grid.shape), "INT64"),
    ]
    for tensor, values in zip(inputs, (patches, grid), strict=True):
        tensor.set_data_from_numpy(values, binary_data=binary)
    return inputs


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, MANIFEST.version)
    assert not client.is_model_ready("other")
    assert not client.is_model_ready(NAME, "2")
    assert client.get_server_metadata()["name"] == "patchserve"
    metadata = client.get_model_metadata(NAME, MANIFEST.version)
    assert [each["name"] for each in metadata["inputs"]] == ["image", "patches", "grid"]
    assert [each["name"] for each in client.get_model_repository_index()] == [NAME]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("column", [True, False])
def test_images(client: Any, binary: bool, column: bool) -> None:
    inputs = [image_input(*FILES, binary=binary, column=column)]
    result = client.infer(NAME, inputs, model_version=MANIFEST.version, request_id="mine")
    logits = result.as_numpy("logits")
    assert (logits.dtype, logits.shape) == (np.float32, (2, 3))
    assert logits.argmax(axis=1).tolist() == [0, 2]
    np.testing.assert_allclose(result.as_numpy("probabilities").sum(axis=1), 1, rtol=1e-6)
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == MANIFEST.version


@pytest.mark.parametrize("binary", [True, False])
def test_patches_get_the_logits_of_their_images(client: Any, binary: bool) -> None:
    of_images = client.infer(NAME, [image_input(*FILES)]).as_numpy("logits")
    outputs = [http.InferRequestedOutput("logits", binary_data=binary)]
    of_patches = client.infer(NAME, patch_inputs(*FILES, binary=binary), outputs=outputs).as_numpy("logits")
    np.testing.assert_array_equal(of_patches, of_images)


@pytest.mark.parametrize("binary", [True, False])
def test_classification(client: Any, binary: bool) -> None:
    outputs = [http.InferRequestedOutput("logits", binary_data=binary, class_count=2)]
    strings = client.infer(NAME, [image_input(*FILES)], outputs=outputs).as_numpy("logits")
    assert strings.shape == (2, 2)
    first = strings[0, 0].decode() if binary else str(strings[0, 0])
    score, index, label = first.removeprefix("b'").removesuffix("'").split(":")
    assert (int(index), label) == (0, LABELS[0])
    assert float(score) == pytest.approx(client.infer(NAME, [image_input(FILES[0])]).as_numpy("logits").max(), abs=1e-6)


def test_other_ways_to_ask(client: Any, service: ServedProcess) -> None:
    expected = client.infer(NAME, [image_input(*FILES)]).as_numpy("logits")
    waiting = client.async_infer(NAME, [image_input(*FILES)], timeout=5_000_000, priority=1, parameters={"own": "x"})
    np.testing.assert_array_equal(waiting.get_result().as_numpy("logits"), expected)

    async def ask() -> Any:
        from tritonclient.http import aio

        async with aio.InferenceServerClient(f"127.0.0.1:{service.port}") as other:
            return (await other.infer(NAME, [image_input(*FILES)])).as_numpy("logits")

    np.testing.assert_array_equal(asyncio.run(ask()), expected)


def test_errors_are_those_of_the_client(client: Any) -> None:
    def status_of(ask: Any) -> str:
        with pytest.raises(utils.InferenceServerException) as caught:
            ask()
        assert caught.value.message().endswith("."), "one sentence of ours"
        return str(caught.value.status())

    assert status_of(lambda: client.infer("other", [image_input(*FILES)])) == "404"
    assert status_of(lambda: client.infer(NAME, [image_input(b"<html>no image</html>")])) == "415"
    assert status_of(lambda: client.infer(NAME, [image_input(FILES[0][:40])])) == "422"
    assert status_of(lambda: client.infer(NAME, patch_inputs(*FILES)[:1])) == "400"
    assert status_of(lambda: client.infer(NAME, [image_input(*FILES)], request_compression_algorithm="gzip")) == "415"
    assert status_of(lambda: client.get_model_config(NAME)) == "400"
    assert status_of(client.get_system_shared_memory_status) == "400"
    assert status_of(lambda: client.load_model(NAME)) == "400"
    shared = image_input(*FILES)
    shared.set_shared_memory("region", 10)
    assert status_of(lambda: client.infer(NAME, [shared])) == "400"


def test_several_processes_rank_but_have_no_logits(artifact: Path) -> None:
    with served(artifact, http_workers=2) as service, http.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        assert [each["name"] for each in client.get_model_metadata(NAME)["outputs"]] == ["probabilities"]
        best = [http.InferRequestedOutput("probabilities", class_count=1)]
        for inputs in ([image_input(*FILES)], patch_inputs(*FILES)):
            strings = client.infer(NAME, inputs, outputs=best).as_numpy("probabilities")
            assert [each.decode().split(":")[2] for each in strings[:, 0]] == ["red", "blue"]
            np.testing.assert_allclose(client.infer(NAME, inputs).as_numpy("probabilities").sum(axis=1), 1, rtol=1e-6)
        with pytest.raises(utils.InferenceServerException, match="--http-workers 1") as caught:
            client.infer(NAME, [image_input(*FILES)], outputs=[http.InferRequestedOutput("logits")])
        assert caught.value.status() == "400"
