"""Several models in one service: which there are, which one answers, and files that are none."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_artifact import METADATA_KEY, PATCH, build_model, renamed, write_artifact

from service.app import create_app
from service.errors import StartError
from service.settings import Settings

from .conftest import Serving, picture

pytestmark = pytest.mark.anyio
RED = picture((220, 20, 20))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models, and two versions of the first: their scores differ by the scale of their logits."""
    write_artifact(tmp_path / "a.onnx", renamed(name="colours", version="1.9"), scale=1.0)
    write_artifact(tmp_path / "b.onnx", renamed(name="colours", version="1.10"), scale=2.0)
    write_artifact(tmp_path / "c.onnx", renamed(name="shades", labels=("r", "g", "b")), scale=3.0)
    (tmp_path / "notes.txt").write_text("not a model")
    return tmp_path


async def classify(client: httpx.AsyncClient, **query: str) -> httpx.Response:
    return await client.post("/classify", content=RED, headers={"content-type": "image/png"}, params=query)


async def answered_by(client: httpx.AsyncClient, **query: str) -> tuple[str, str]:
    response = await classify(client, **query)
    assert response.status_code == 200, response.text
    model = response.json()["model"]
    return model["name"], model["version"]


async def test_a_request_chooses_its_model(serving: Serving, folder: Path) -> None:
    async with serving(model=folder) as client:
        assert await answered_by(client) == ("colours", "1.10")
        assert await answered_by(client, model="colours") == ("colours", "1.10")
        assert await answered_by(client, model="colours@1.9") == ("colours", "1.9")
        assert await answered_by(client, model="shades") == ("shades", "1.0.0")
        labels = (await classify(client, model="shades")).json()["results"][0]["predictions"]
    assert labels[0]["label"] == "r"


async def test_the_default_model_can_be_chosen(serving: Serving, folder: Path) -> None:
    async with serving(model=folder, default_model="shades") as client:
        assert await answered_by(client) == ("shades", "1.0.0")


async def test_every_version_is_listed_with_its_digest(serving: Serving, folder: Path) -> None:
    async with serving(model=folder) as client:
        listed = (await client.get("/models")).json()["models"]
        old = (await client.get("/models/colours@1.9")).json()
        assert (await client.get("/models/colours")).json()["manifest"]["version"] == "1.10"
    assert [(each["name"], each["version"], each["newest"], each["default"]) for each in listed] == [
        ("colours", "1.10", True, True),
        ("colours", "1.9", False, False),
        ("shades", "1.0.0", True, False),
    ]
    digests = [f"sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}" for name in ("b.onnx", "a.onnx")]
    assert [each["digest"] for each in listed][:2] == digests
    assert (old["manifest"]["version"], old["digest"], old["state"]) == ("1.9", digests[1], "ready")


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "a.onnx",
        "\0",
        "",
        "colours@",
        "colours@1.9@1.9",
        "COLOURS",
        "c\N{CYRILLIC SMALL LETTER O}lours",
        "x" * 4096,
    ],
)
async def test_any_other_name_is_404_and_no_echo(serving: Serving, folder: Path, name: str) -> None:
    async with serving(model=folder) as client:
        response = await classify(client, model=name)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert "passwd" not in response.text


async def test_labels_bound_k_for_each_model(serving: Serving, folder: Path) -> None:
    write_artifact(folder / "d.onnx", renamed(name="many", labels=tuple("abcdefg")), classes=7)
    async with serving(model=folder) as client:
        assert (await classify(client, model="many", k="7")).status_code == 200
        assert (await classify(client, model="colours", k="7")).status_code == 422


# --- what stops the start -------------------------------------------------------------------------------------------
def start(model: Path, **settings: str) -> None:
    create_app(Settings(**{"model": model, "log_level": "error"} | settings))  # type: ignore[arg-type]


def external(path: Path, location: str = "weights.bin") -> None:
    model = build_model()
    helper.set_model_props(model, {METADATA_KEY: renamed().to_json()})
    weight = next(each for each in model.graph.initializer if each.name == "colours")
    (path.parent / "weights.bin").write_bytes(np.frombuffer(weight.raw_data, np.uint8).tobytes())
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())


def cut_off(path: Path) -> None:
    content = write_artifact(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("this is a text"),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "cut off": cut_off,
    "no manifest": lambda path: write_artifact(path, manifest=None),
    "input name": lambda path: write_artifact(path, patches_name="pixels"),
    "input type": lambda path: write_artifact(path, patches_type=TensorProto.INT8),
    "input shape": lambda path: write_artifact(path, length=7 * 7),
    "another input": lambda path: write_artifact(path, extra_input=True),
    "fewer classes": lambda path: write_artifact(path, classes=2),
    "more labels": lambda path: write_artifact(path, renamed(labels=("a", "b", "c", "d"))),
    "patch size": lambda path: write_artifact(
        path, renamed(preprocessing=renamed().preprocessing.__class__(PATCH * 2, (7, 7), 100, "aspect"))
    ),
    "opset": lambda path: write_artifact(path, opset=999),
    "not finite": lambda path: write_artifact(path, scale=float("nan")),
    "external data": external,
    "external data above": lambda path: external(path, "../weights.bin"),
    "external data of the system": lambda path: external(path, "/proc/self/environ"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_stops_the_start_and_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "some.onnx"
    BAD[kind](path)
    with pytest.raises(StartError) as refused:
        start(path)
    assert "\n" not in str(refused.value)
    if kind != "not finite":  # what fails when it runs is told by what it did
        assert str(path) in str(refused.value)


def test_one_bad_file_of_a_folder_stops_the_start(folder: Path) -> None:
    (folder / "z.onnx").write_text("broken")
    with pytest.raises(StartError, match=r"z\.onnx"):
        start(folder)


def test_a_missing_file_is_named_with_the_expected_digest(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"none\.onnx cannot be read: No such file.*the expected SHA-256 is f{64}"):
        start(tmp_path / "none.onnx", model_sha256="f" * 64)


def test_a_pinned_digest_refuses_any_other_file(artifact: Path) -> None:
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    start(artifact, model_sha256=f"{'0' * 64},{digest}")
    with pytest.raises(StartError, match=f"has SHA-256 {digest}; the expected SHA-256 is {'0' * 64}"):
        start(artifact, model_sha256="0" * 64)


def test_two_files_of_one_version_stop_the_start(folder: Path) -> None:
    write_artifact(folder / "d.onnx", renamed(name="colours", version="1.9"), scale=5.0)
    with pytest.raises(StartError, match=r"a\.onnx and .*d\.onnx are both version '1\.9' of the model colours"):
        start(folder)


def test_an_unknown_default_model_stops_the_start(folder: Path) -> None:
    with pytest.raises(StartError, match="--default-model: there is no such model, only colours, shades"):
        start(folder, default_model="other")


def test_a_folder_without_artifacts_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="holds no artifacts"):
        start(tmp_path)


def test_external_data_is_what_is_refused_and_not_something_else(tmp_path: Path) -> None:
    """The file is good where its weights are found: a runtime that opens it by its path serves it."""
    external(tmp_path / "some.onnx")
    onnx.checker.check_model(str(tmp_path / "some.onnx"))
    import onnxruntime

    onnxruntime.InferenceSession(tmp_path / "some.onnx", providers=["CPUExecutionProvider"])
