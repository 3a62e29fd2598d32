"""Rows of classes G and H that are about the model file: never ready, status 1, one line that names the file."""

import hashlib
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fault_costs import note_cost
from onnx import TensorProto, helper
from served_process import COMMAND, environment
from tiny_artifact import renamed, write_artifact

ROOT = str(Path(__file__).parents[2])
WEIGHTS = np.tile(np.eye(3, dtype=np.float32), (16, 1)).tobytes()  # of the tensor that `external` takes away


def external(path: Path, location: str) -> None:
    """A model whose weights are elsewhere."""
    model = onnx.load(write_artifact(path))
    weight = next(each for each in model.graph.initializer if each.name == "colours")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())


def external_and_there(path: Path, link: Callable[[Path, Path], None] | None = None) -> None:
    """The same with the right weights beside the file, in the working folder: a link, or a file of their own."""
    external(path, "weights")
    if link is None:
        path.with_name("weights").write_bytes(WEIGHTS)
        return
    (path.parent / "elsewhere").mkdir()
    (path.parent / "elsewhere" / "weights").write_bytes(WEIGHTS)
    link(path.parent / "elsewhere" / "weights", path.with_name("weights"))


def external_constant(path: Path) -> None:
    """A model with a constant among its nodes whose values are elsewhere."""
    model = onnx.load(write_artifact(path))
    weight = next(each for each in model.graph.initializer if each.name == "colours")
    elsewhere = TensorProto(name="colours", data_type=TensorProto.FLOAT, dims=weight.dims)
    elsewhere.data_location = TensorProto.EXTERNAL
    elsewhere.external_data.add(key="location", value="weights")
    path.with_name("weights").write_bytes(WEIGHTS)
    model.graph.initializer.remove(weight)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["colours"], value=elsewhere))
    path.write_bytes(model.SerializeToString())


def with_operator(path: Path, kind: str, domain: str, **attributes: Any) -> None:
    """A model in which an operator that is no standard one makes the logits."""
    model = onnx.load(write_artifact(path))
    last = model.graph.node[-1]
    last.output[0] = "product"
    model.graph.node.append(helper.make_node(kind, ["product"], ["logits"], domain=domain, **attributes))
    model.opset_import.append(helper.make_opsetid(domain, 1))
    path.write_bytes(model.SerializeToString())


BAD: dict[str, Callable[[Path], object]] = {
    "G11 missing": lambda path: None,
    "G11 empty": lambda path: path.write_bytes(b""),
    "G11 text": lambda path: path.write_text("this is no model"),
    "G11 random": lambda path: path.write_bytes(random.Random(1).randbytes(100_000)),  # noqa: S311 - a fixed seed
    "G11 truncated": lambda path: path.write_bytes(write_artifact(path).read_bytes()[:-50]),
    "G12 wrong input name": lambda path: write_artifact(path, patches_name="pixels"),
    "G12 wrong type": lambda path: write_artifact(path, patches_type=TensorProto.FLOAT),
    "G12 other number of classes": lambda path: write_artifact(path, classes=4),
    "G12 another input": lambda path: write_artifact(path, extra_input=True),
    "G12 no manifest": lambda path: write_artifact(path, manifest=None),
    "H1 external data, absolute": lambda path: external(path, "/proc/self/environ"),
    "G15 another answer to the golden image": lambda path: write_artifact(path, renamed(golden=((0, 99.0),))),
    "H1 external data, parent folder": lambda path: external(path, "../weights"),
    "H1 external data that is there": external_and_there,
    "H1 external data, a symbolic link": lambda path: external_and_there(path, os.symlink),
    "H1 external data, a hard link": lambda path: external_and_there(path, os.link),
    "H1 external data of a constant": external_constant,
    "H5 an operator of a library": lambda path: with_operator(path, "Own", "com.example"),
    "H5 a compiled graph elsewhere": lambda path: with_operator(
        path, "EPContext", "com.microsoft", ep_cache_context="weights", embed_mode=0, main_context=1
    ),
    "H6 pickle": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n\x8c\x04true\x85R."),
}


@pytest.mark.faults_slow
def test_h8_another_hash(artifact: Path, request: pytest.FixtureRequest) -> None:
    """The line names the file, its hash and the one that was expected."""
    expected, found = "0" * 64, hashlib.sha256(artifact.read_bytes()).hexdigest()
    ended = start(artifact, f"--model-sha256={expected}")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert all(word in ended.stderr for word in (str(artifact), expected, found))
    note_cost(request, 0, 0)


def start(model: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, "serve", str(model), "--port=0", "--http-workers=1", *flags]
    variables = environment(PYTHONPATH=ROOT)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=variables, cwd=model.parent, check=False
    )


@pytest.mark.faults_slow
@pytest.mark.parametrize("write", BAD.values(), ids=BAD)
def test_bad_model(tmp_path: Path, write: Callable[[Path], object], request: pytest.FixtureRequest) -> None:
    path = tmp_path / "model.onnx"
    write(path)
    ended = start(path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("patchserve: ")
    assert ended.stderr.count("\n") == 1
    note_cost(request, 0, 0)
