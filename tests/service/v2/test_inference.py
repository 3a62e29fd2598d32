import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from infer_bodies import (
    binary_images,
    binary_outputs,
    binary_patches,
    image_input,
    in_base64,
    json_images,
    json_patches,
    packed,
    with_binary,
)
from tiny_artifact import LABELS, MANIFEST, write_artifact

from model.headers import ImageLimits
from model.manifest import Accuracy
from model.preprocess import PatchSequence, preprocess
from service.predictions import softmax
from tests.service.conftest import Serving, picture
from tests.service.test_classify import HeldEngine, classify, metrics, until

pytestmark = pytest.mark.anyio

MODEL = f"/v2/models/{MANIFEST.name}"
INFER = f"{MODEL}/infer"
SPEC = MANIFEST.preprocessing
FILES = [picture((220, 20, 20)), picture((20, 20, 220), (60, 20)), picture((20, 200, 20), (12, 60), "JPEG")]
LOGITS = {"outputs": [{"name": "logits"}]}


def cut(file: bytes) -> PatchSequence:
    return preprocess(file, SPEC, ImageLimits())


def stacked(sequences: Sequence[PatchSequence], extra: int = 0) -> tuple[np.ndarray[Any, Any], list[tuple[int, int]]]:
    """Patches as a client would stack them, padded with noise, and their grids."""
    longest = max(len(each.patches) for each in sequences) + extra
    patches = np.random.default_rng(0).integers(0, 256, (len(sequences), longest, SPEC.patch_dim), np.uint8)
    for place, each in enumerate(sequences):
        patches[place, : len(each.patches)] = each.patches
    return patches, [each.grid for each in sequences]


def expected(file: bytes) -> np.ndarray[Any, Any]:
    """What the tiny model answers: the mean colour times ten."""
    colours = cut(file).patches.reshape(-1, 3).astype(np.float64).mean(axis=0)
    return (colours / 255 * 10).astype(np.float32)


def output(response: httpx.Response, name: str = "logits") -> dict[str, Any]:
    assert response.status_code == 200, response.text
    [found] = [each for each in response.json()["outputs"] if each["name"] == name]
    return found


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and sentence of a reply that must be an error of the protocol."""
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert document.keys() == {"error"}
    return response.status_code, document["error"]


# --- images -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [[3], [3, 1]])
async def test_images_in_json_and_as_binary_data_get_the_logits_of_the_model(
    serving: Serving, shape: list[int]
) -> None:
    document, (content, headers) = json_images(*FILES, **LOGITS), binary_images(*FILES, **LOGITS)
    document["inputs"][0]["shape"] = shape
    if shape == [3, 1]:
        document["inputs"][0]["data"] = [[each] for each in document["inputs"][0]["data"]]
    async with serving() as client:
        found = output(await client.post(INFER, json=document))
        assert output(await client.post(INFER, content=content, headers=headers)) == found
    assert (found["datatype"], found["shape"]) == ("FP32", [3, 3])
    for row, file in zip(np.reshape(found["data"], (3, 3)), FILES, strict=True):
        np.testing.assert_allclose(row, expected(file), rtol=1e-5)


async def test_without_json_the_body_is_one_image(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        found = output(await client.post(INFER, content=red, headers={"Inference-Header-Content-Length": "0"}))
        assert found == output(await client.post(INFER, json=json_images(red)))
    assert found["shape"] == [1, 3]


async def test_a_version_is_addressed_as_the_model_is(serving: Serving, red: bytes) -> None:
    versioned = f"{MODEL}/versions/{MANIFEST.version}"
    async with serving() as client:
        reply = (await client.post(f"{versioned}/infer", json=json_images(red))).json()
        assert (reply["model_name"], reply["model_version"]) == (MANIFEST.name, MANIFEST.version)
        for path in ("/v2/models/other/infer", f"{MODEL}/versions/2/infer", f"{MODEL}/versions/%00/infer"):
            assert refusal(await client.post(path, json=json_images(red)))[0] == 404


async def test_an_image_that_cannot_be_read_fails_the_request(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        assert refusal(await client.post(INFER, json=json_images(red, b"")))[0] == 422
        assert refusal(await client.post(INFER, json=json_images(b"<html>secret", red)))[0] == 415
        seen = await metrics(client)
    assert (
        seen["images_total", "ok"]
        == seen["images_total", "invalid_image"] + seen["images_total", "unsupported_media_type"]
        == 2
    )
    assert seen["requests_total", "/v2/models/{name}/infer", "invalid_image"] == 1


# --- patches ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("extra", [0, 3])
async def test_patches_get_the_logits_of_their_images_and_padding_is_not_kept(serving: Serving, extra: int) -> None:
    patches, grid = stacked([cut(file) for file in FILES], extra)
    content, headers = binary_patches(patches, grid, **LOGITS)
    async with serving() as client:
        of_images = output(await client.post(INFER, json=json_images(*FILES, **LOGITS)))
        assert output(await client.post(INFER, content=content, headers=headers)) == of_images
        assert output(await client.post(INFER, json=json_patches(patches, grid, **LOGITS))) == of_images
        seen = await metrics(client)
    assert seen["batch_patches_sum",] == 3 * sum(rows * columns for rows, columns in grid)
    assert seen["queue_patches",] == seen["upload_bytes",] == 0


async def test_flat_values_are_as_good_as_nested_ones(serving: Serving, red: bytes) -> None:
    document = json_patches(*stacked([cut(red)]))
    async with serving() as client:
        nested = output(await client.post(INFER, json=document))
        for each in document["inputs"]:
            each["data"] = np.ravel(each["data"]).tolist()
        assert output(await client.post(INFER, json=document)) == nested


def change(place: int, **members: Any) -> dict[str, Any]:
    document = json_patches(np.zeros((1, 4, SPEC.patch_dim), np.uint8), [(2, 2)])
    document["inputs"][place] |= members
    return document


@pytest.mark.parametrize(
    "document",
    [
        change(0, shape=[1, 4, SPEC.patch_dim - 1]),
        change(0, shape=[1, 5, SPEC.patch_dim]),
        change(0, shape=[4, SPEC.patch_dim]),
        change(0, shape=[2, 2, SPEC.patch_dim]),
        change(0, shape=[1, -4, SPEC.patch_dim]),
        change(0, shape=[1, 0, SPEC.patch_dim]),
        change(0, shape=[1, 2**63, SPEC.patch_dim]),
        change(0, shape=[1, 4.0, SPEC.patch_dim]),
        change(0, shape=[True, 4, SPEC.patch_dim]),
        change(0, shape=[]),
        change(0, shape=[1] * 1000),
        change(0, shape="1,4,48"),
        change(0, datatype="FP32"),
        change(0, datatype="INT64"),
        change(0, data=None),
        change(0, data=[]),
        change(0, data=[256] * 4 * SPEC.patch_dim),
        change(0, data=[-1] * 4 * SPEC.patch_dim),
        change(0, data=[1.0] * 4 * SPEC.patch_dim),
        change(0, data=[0, True] * 2 * SPEC.patch_dim),
        change(0, data=[10**30] * 4 * SPEC.patch_dim),
        change(0, data=["0"] * 4 * SPEC.patch_dim),
        change(0, data=[[0] * SPEC.patch_dim] * 4),
        change(0, data=[[[0] * SPEC.patch_dim] * 3 + [0]]),
        change(0, parameters={"binary_data_size": 4 * SPEC.patch_dim}),
        change(0, name="grid"),
        change(0, name="secret"),
        change(1, data=[2, 3]),
        change(1, data=[-2, -2]),
        change(1, data=[0, 4]),
        change(1, data=[2**62, 4]),
        change(1, data=[2**63, 1]),
        change(1, data=[2.0, 2.0]),
        change(1, data=[True, True]),
        change(1, data=[[2], [2]]),
        change(1, shape=[1, 3]),
        change(1, datatype="UINT8"),
        {"inputs": change(0)["inputs"][:1]},
        {"inputs": [*change(0)["inputs"], image_input(1, data=["AAAA"])]},
    ],
)
async def test_patches_that_are_not_as_the_model_has_them_are_400(serving: Serving, document: Any) -> None:
    async with serving() as client:
        assert output(await client.post(INFER, json=change(0)))
        status, sentence = refusal(await client.post(INFER, json=document))
    assert status == 400
    assert "secret" not in sentence


async def test_limits_of_a_request_are_those_of_the_service(serving: Serving, red: bytes) -> None:
    one = SPEC.max_patches + 1
    async with serving(max_files=2) as client:
        status, sentence = refusal(await client.post(INFER, json=json_images(red, red, red)))
        assert (status, "1 to 2 images" in sentence) == (400, True)
        content, headers = binary_patches(np.zeros((3, 1, SPEC.patch_dim), np.uint8), [(1, 1)] * 3)
        assert refusal(await client.post(INFER, content=content, headers=headers))[0] == 400
        content, headers = binary_patches(np.zeros((1, one, SPEC.patch_dim), np.uint8), [(1, one)])
        assert refusal(await client.post(INFER, content=content, headers=headers))[0] == 400
    async with serving(max_body_bytes=1000) as client:
        assert refusal(await client.post(INFER, content=b"x" * 1001)) == (413, "The body is larger than 1000 bytes.")


# --- bodies -----------------------------------------------------------------------------------------------------------
GOOD = json.dumps(json_images(picture())).encode()


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"", {"Inference-Header-Content-Length": "0"}),
        (GOOD, {"Inference-Header-Content-Length": str(len(GOOD) + 1)}),
        (GOOD, {"Inference-Header-Content-Length": str(len(GOOD) - 1)}),
        (GOOD, {"Inference-Header-Content-Length": "-1"}),
        (GOOD, {"Inference-Header-Content-Length": "1e3"}),
        (GOOD, {"Inference-Header-Content-Length": "9" * 400}),
        (GOOD + b"x", {"Inference-Header-Content-Length": str(len(GOOD))}),
        (GOOD + b"x", {}),
        (b"[" * 100_000, {}),
        (b'{"a":' * 100_000, {}),
        (b"[" * 150 + b"]" * 150, {}),
        (b'{"inputs": NaN}', {}),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [NaN]}]}', {}),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [Infinity], "data": []}]}', {}),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["\\ud800"]}]}', {}),
        (b'{"inputs": [' + b"1" * 5000 + b"]}", {}),
        (b"\xff\xfe{}", {}),
        (b"null", {}),
        (b"[]", {}),
        (b"{}", {}),
        (b'{"inputs": []}', {}),
        (b'{"inputs": {}}', {}),
        (b'{"inputs": [1]}', {}),
        (b"[" + b"0," * 1_000_000 + b"0]", {}),
    ],
)
async def test_a_body_that_cannot_be_read_is_400(serving: Serving, content: bytes, headers: dict[str, str]) -> None:
    async with serving() as client:
        assert refusal(await client.post(INFER, content=content, headers=headers))[0] == 400


@pytest.mark.parametrize(
    ("size", "blob"),
    [
        (0, b""),
        (4, b"\x00\x00\x00\x00"),  # an image of no bytes: 422
        (3, b"\x00\x00\x00"),
        (8, b"\xff\xff\xff\xffabcd"),
        (8, b"\x03\x00\x00\x00abcd"),
        (12, packed(b"ab", b"ab")),
        (7, b"\x04\x00\x00\x00abcd"),
        (9, b"\x04\x00\x00\x00abcd"),
    ],
)
async def test_binary_strings_of_a_wrong_length(serving: Serving, size: int, blob: bytes) -> None:
    content, headers = with_binary({"inputs": [image_input(1, parameters={"binary_data_size": size})]}, blob)
    async with serving() as client:
        status, _ = refusal(await client.post(INFER, content=content, headers=headers))
    assert status == (422 if blob == bytes(4) else 400)


@pytest.mark.parametrize("size", [-1, 1.5, True, "4", None, 2**63, 10**400])
async def test_binary_sizes_that_are_none(serving: Serving, size: Any) -> None:
    content, headers = with_binary({"inputs": [image_input(1, parameters={"binary_data_size": size})]}, b"abcd")
    async with serving() as client:
        assert refusal(await client.post(INFER, content=content, headers=headers))[0] == 400


@pytest.mark.parametrize(
    "data", [["!"], ["QQ=="[:3]], ["QUJD\n"], ["é"], [1], [None], [["QQ=="], []], [], ["QQ==", "QQ=="]]
)
async def test_strings_that_are_no_base64_are_400(serving: Serving, data: list[Any]) -> None:
    async with serving() as client:
        assert refusal(await client.post(INFER, json={"inputs": [image_input(1, data=data)]}))[0] == 400


async def test_a_compressed_body_is_never_inflated(serving: Serving) -> None:
    async with serving() as client:
        response = await client.post(INFER, content=GOOD, headers={"content-encoding": "gzip"})
        assert refusal(response)[0] == 415
        two = [("Inference-Header-Content-Length", "0")] * 2
        assert refusal(await client.post(INFER, content=GOOD, headers=two))[0] == 400


# --- outputs ----------------------------------------------------------------------------------------------------------
async def test_all_outputs_are_the_default_and_probabilities_are_the_softmax(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        response = await client.post(INFER, json=json_images(red))
    logits, shares = output(response)["data"], output(response, "probabilities")["data"]
    np.testing.assert_allclose(shares, softmax(np.array(logits, np.float32)), rtol=1e-6)
    assert "inference-header-content-length" not in response.headers


async def test_classification_is_written_as_triton_does(serving: Serving, red: bytes, blue: bytes) -> None:
    wanted = [
        {"name": "logits", "parameters": {"classification": 2}},
        {"name": "probabilities", "parameters": {"classification": 50, "binary_data": True}},
    ]
    async with serving() as client:
        response = await client.post(INFER, json=json_images(red, blue, outputs=wanted))
        results = (await classify(client, red, blue)).json()["results"]
        logits = np.reshape(output(await client.post(INFER, json=json_images(red, blue)))["data"], (2, 3))
    length = int(response.headers["inference-header-content-length"])
    document = json.loads(response.content[:length])
    assert response.headers["content-type"] == "application/octet-stream"
    assert [each["shape"] for each in document["outputs"]] == [[2, 2], [2, 3]]
    assert [each["datatype"] for each in document["outputs"]] == ["BYTES", "BYTES"]
    assert document["outputs"][0]["data"] == [
        f"{row[index]:f}:{index}:{LABELS[index]}" for row in logits for index in np.argsort(-row, kind="stable")[:2]
    ]
    blob = response.content[length:]
    assert blob == packed(
        *[
            f"{each['score']:f}:{each['index']}:{each['label']}".encode()
            for result in results
            for each in result["predictions"]
        ]
    )


async def test_outputs_are_binary_where_that_is_asked_for(serving: Serving, red: bytes) -> None:
    mixed = {"outputs": [{"name": "probabilities", "parameters": {"binary_data": False}}, {"name": "logits"}]}
    async with serving() as client:
        plain = output(await client.post(INFER, json=json_images(red)))["data"]
        both = await client.post(INFER, json=json_images(red, parameters={"binary_data_output": True}))
        found = binary_outputs(both.content, int(both.headers["inference-header-content-length"]))
        np.testing.assert_array_equal(found["logits"], np.array([plain], np.float32))
        assert found.keys() == {"logits", "probabilities"}
        response = await client.post(INFER, json=json_images(red, parameters={"binary_data_output": True}, **mixed))
    length = int(response.headers["inference-header-content-length"])
    first, second = json.loads(response.content[:length])["outputs"]
    assert (first["name"], "data" in first) == ("probabilities", True)
    assert (second["name"], second["parameters"]) == ("logits", {"binary_data_size": 12})
    assert len(response.content) == length + 12


@pytest.mark.parametrize(
    "outputs",
    [
        [{"name": "secret"}],
        [{"name": "logits"}, {"name": "logits"}],
        [{"name": "logits", "parameters": {"classification": -1}}],
        [{"name": "logits", "parameters": {"classification": True}}],
        [{"name": "logits", "parameters": {"classification": 1.0}}],
        [{"name": "logits", "parameters": {"classification": 2**64}}],
        [{"name": "logits", "parameters": {"binary_data": 1}}],
        [{"name": "logits", "parameters": {"shared_memory_region": "secret"}}],
        [{"name": "logits", "parameters": [1]}],
        [{}],
        [1],
        {},
        [{"name": "logits"}] * 1000,
    ],
)
async def test_outputs_that_cannot_be_had_are_400(serving: Serving, red: bytes, outputs: Any) -> None:
    async with serving() as client:
        status, sentence = refusal(await client.post(INFER, json=json_images(red, outputs=outputs)))
    assert status == 400
    assert "secret" not in sentence


async def test_of_many_classes_a_hundred_can_be_ranked(serving: Serving, tmp_path: Path, red: bytes) -> None:
    labels = tuple(f"class {index}" for index in range(300))
    many = write_artifact(tmp_path / "many.onnx", replace(MANIFEST, labels=labels), classes=300)
    best = [{"name": "logits", "parameters": {"classification": count}} for count in (100, 101)]
    async with serving(model=many) as client:
        assert output(await client.post(INFER, json=json_images(red, outputs=best[:1])))["shape"] == [1, 100]
        assert refusal(await client.post(INFER, json=json_images(red, outputs=best[1:])))[0] == 400
        assert output(await client.post(INFER, json=json_images(*[red] * 16)))["shape"] == [16, 300]
        assert output(await client.post(INFER, json=json_images(*[red] * 16), headers={}), "probabilities")


# --- parameters and ids -----------------------------------------------------------------------------------------------
async def test_the_id_comes_back_and_unknown_members_are_ignored(serving: Serving, red: bytes) -> None:
    document = json_images(red, id='a "b" é', parameters={"priority": 1, "own": "x"}, more={"a": [1]})
    async with serving() as client:
        assert (await client.post(INFER, json=document)).json()["id"] == 'a "b" é'
        assert "id" not in (await client.post(INFER, json=json_images(red))).json()


@pytest.mark.parametrize(
    "rest",
    [
        {"id": 1},
        {"id": "x" * 257},
        {"parameters": []},
        {"parameters": {"timeout": -1}},
        {"parameters": {"timeout": 1.5}},
        {"parameters": {"timeout": True}},
        {"parameters": {"timeout": 2**63}},
        {"parameters": {"max_patches": 0}},
        {"parameters": {"allow_degraded": "no"}},
        {"parameters": {"binary_data_output": 1}},
        {"outputs": None},
    ],
)
async def test_parameters_of_a_wrong_kind_are_400(serving: Serving, red: bytes, rest: dict[str, Any]) -> None:
    async with serving() as client:
        assert refusal(await client.post(INFER, json=json_images(red, **rest)))[0] == 400


async def test_max_patches_is_obeyed_for_images(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        await client.post(INFER, json=json_images(red, parameters={"max_patches": 10}))
        assert (await metrics(client))["batch_patches_sum",] <= 10


async def test_a_timeout_is_a_deadline_and_a_long_one_is_cut(serving: Serving, artifact: Path, red: bytes) -> None:
    engine = HeldEngine(artifact)
    async with serving(engine) as client:
        engine.may_run.clear()
        response = await client.post(INFER, json=json_images(red, parameters={"timeout": 50_000}))
        assert refusal(response)[0] == 504
        engine.may_run.set()
        assert output(await client.post(INFER, json=json_images(red, parameters={"timeout": 2**62})))


# --- the same gates ---------------------------------------------------------------------------------------------------
async def test_what_is_over_the_bound_is_refused_with_a_time_to_try_again(serving: Serving, artifact: Path) -> None:
    patches, grid = stacked([cut(picture())])
    content, headers = binary_patches(patches, grid)
    engine = HeldEngine(artifact)
    async with serving(engine, max_queue_patches=100, max_batch_patches=100) as client:
        engine.may_run.clear()
        burst = [asyncio.create_task(client.post(INFER, content=content, headers=headers)) for _ in range(8)]
        done, accepted = await asyncio.wait(burst, timeout=0.5)
        assert len(accepted) == 2, "49 patches each: two fit into 100"
        for task in done:
            assert refusal(task.result())[0] == 429
            assert 1 <= int(task.result().headers["retry-after"]) <= 60
        engine.may_run.set()
        for task in accepted:
            assert output(await task)


async def test_under_load_images_are_degraded_and_patches_are_not(serving: Serving, tmp_path: Path) -> None:
    curve = Accuracy("a set", ((50, 0.88), (100, 0.90)))
    engine = HeldEngine(write_artifact(tmp_path / "measured.onnx", replace(MANIFEST, accuracy=curve)))
    large = picture(size=(400, 400))
    async with serving(engine, brown_out_wait_ms=1, default_timeout_ms=20_000) as client:
        assert "parameters" not in (await client.post(INFER, json=json_images(large))).json()
        engine.may_run.clear()
        held = [asyncio.create_task(classify(client, large)) for _ in range(40)]

        async def low() -> bool:
            return (await metrics(client))["brown_out_level",] == 2

        await until(low)
        engine.may_run.set()
        await asyncio.gather(*held)
        before = (await metrics(client))["batch_patches_sum",]
        reply = (await client.post(INFER, json=json_images(large))).json()
        assert reply["parameters"] == {"degraded": True}
        assert (await metrics(client))["batch_patches_sum",] - before == 49
        content, headers = binary_patches(*stacked([cut(large)]))
        for asked in (
            {"json": json_images(large, parameters={"allow_degraded": False})},
            {"content": content, "headers": headers},
        ):
            before = (await metrics(client))["batch_patches_sum",]
            assert "parameters" not in (await client.post(INFER, **asked)).json()
            assert (await metrics(client))["batch_patches_sum",] - before == 100


async def test_large_json_is_read_and_written_in_a_thread(serving: Serving, tmp_path: Path) -> None:
    labels = tuple(str(index) for index in range(2000))
    many = write_artifact(tmp_path / "many.onnx", replace(MANIFEST, labels=labels), classes=2000)
    noise = np.random.default_rng(0).integers(0, 256, (16, 100, SPEC.patch_dim), np.uint8)
    async with serving(model=many, max_files=16) as client:
        found = output(await client.post(INFER, json=json_patches(noise, [(10, 10)] * 16)))
    means = noise.reshape(16, -1, 3).astype(np.float64).mean(axis=1) / 255 * 10
    np.testing.assert_allclose(np.reshape(found["data"], (16, 2000))[:, :3], means, rtol=1e-5)


async def test_nothing_of_the_client_is_echoed(serving: Serving) -> None:
    secret = {
        "secret": "secret",
        "inputs": [{"name": "secret", "secret": 1, "datatype": "secret", "shape": ["secret"]}],
    }
    async with serving() as client:
        for path in (INFER, "/v2/models/secret/infer", "/v2/secret"):
            assert "secret" not in (await client.post(path, json=secret)).text
        assert in_base64(b"secret")[0] not in (await client.post(INFER, json=json_images(b"secret"))).text
