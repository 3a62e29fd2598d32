import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from commanded import Commands
from tiny_artifact import METADATA_KEY, build_model, renamed, write_artifact

from model.manifest import Accuracy
from service.commands.artifact_view import bar, size_text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    ballast = np.zeros((1000, 500), np.float16)
    manifest = renamed(name="birds", version="2.0", accuracy=Accuracy("test birds", ((49, 0.5), (196, 0.875))))
    return write_artifact(tmp_path / "birds.onnx", manifest, ballast=ballast)


def test_everything_is_shown(command: Commands, file: Path) -> None:
    status, out, err = command("inspect", file)
    assert (status, err) == (0, "")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for text in ("birds 2.0", digest, "red, green, blue", "ai.onnx 17", "MatMul", "made by hand", "test birds"):
        assert text in out
    assert "patches: uint8 [batch, patches_count, 48]" in out
    assert "ballast" in out
    assert "1000, 500" in out
    assert "1.0 MB" in out
    bars = {line.split()[0]: line.count("█") for line in out.splitlines() if "█" in line}
    assert bars == {"49": 20, "196": 35}


def test_a_narrow_terminal_cuts_no_digest(command: Commands, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = command("inspect", file)[1]
    assert hashlib.sha256(file.read_bytes()).hexdigest() in "".join(out.split())


def test_json_holds_the_same(command: Commands, file: Path) -> None:
    document = json.loads(command("inspect", file, "--json")[1])
    assert document["manifest"]["labels"] == ["red", "green", "blue"]
    assert document["digest"] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert document["weights"]["bytes"]["float16"] == 1_000_000
    assert document["weights"]["largest"][0] == {
        "name": "ballast",
        "type": "float16",
        "shape": [1000, 500],
        "bytes": 1_000_000,
    }
    assert document["graph"]["operators"]["MatMul"] == 2


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is no ONNX file"),
        (b"\xff\xd8\xff\xe0 a photograph", "is no ONNX file"),
        (b"plain text, long enough to look like anything", "is no ONNX file"),
        (build_model().SerializeToString(), "is an ONNX file without a manifest"),
        (build_model().SerializeToString()[:-40], "is no ONNX file"),
    ],
    ids=["empty", "photograph", "text", "foreign", "cut off"],
)
def test_a_file_that_is_not_ours_is_one_line(command: Commands, tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    status, out, err = command("inspect", tmp_path / "x.onnx")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert line in err


def test_a_wrong_manifest_is_one_line_that_names_the_fields(command: Commands, tmp_path: Path) -> None:
    model = build_model()
    onnx.helper.set_model_props(model, {METADATA_KEY: '{"schema": 1, "name": "UPPER"}'})
    onnx.save(model, tmp_path / "x.onnx")
    status, _, err = command("inspect", tmp_path / "x.onnx")
    assert (status, err.count("\n")) == (1, 1)
    assert "'labels' is missing" in err


@pytest.mark.parametrize(("name", "why"), [("missing.onnx", "No such file"), (".", "Is a directory")])
def test_what_cannot_be_read_is_one_line(command: Commands, tmp_path: Path, name: str, why: str) -> None:
    status, _, err = command("inspect", tmp_path / name)
    assert (status, err.count("\n")) == (1, 1)
    assert why in err


def test_neither_engine_nor_onnx_is_loaded(file: Path) -> None:
    program = f"import sys; sys.argv = ['patchserve', 'inspect', {str(file)!r}]\n"
    program += "from service.cli import main\ntry: main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.split()
    assert not {"onnx", "onnxruntime", "fastapi", "numpy", "httpx"} & set(loaded)


def test_bars_and_sizes() -> None:
    assert [bar(share, 4) for share in (0, 0.5, 1, 2, -1, 1 / 32)] == ["", "██", "████", "████", "", "▏"]
    assert [size_text(count) for count in (999, 1000, 2_500_000, 3 * 10**9)] == [
        "999 bytes",
        "1.0 kB",
        "2.5 MB",
        "3.0 GB",
    ]
