"""The export command: what it writes, what it prints, and that a bad artifact is never left behind."""

import json
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

from export import to_onnx, verify
from export.verify import Difference
from model.checkpoints import native
from model.checkpoints.native import Description
from model.manifest import Accuracy, Manifest
from model.sources.source import Source
from model.vit import VisionTransformer, decode_variant


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["to_onnx", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        to_onnx.main()
    if stopped.value.code not in (None, 0):
        raise RuntimeError(str(stopped.value.code))


def manifest_in(path: Path) -> Manifest:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return Manifest.from_json(session.get_modelmeta().custom_metadata_map["patchserve"])


def test_a_checkpoint_becomes_an_artifact_with_its_labels_and_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(*decode_variant("Femto/7", classes=3))
    accuracy = Accuracy("some test set", ((8, 0.5), (16, 0.75)))
    native.save(
        tmp_path / "m.safetensors", model, Description(("a", "b", "c"), "tiny", licence="MIT", accuracy=accuracy)
    )
    run(monkeypatch, tmp_path / "m.safetensors", "-o", tmp_path / "tiny.onnx", "--version", "2.1", "--report")
    manifest = manifest_in(tmp_path / "tiny.onnx")
    assert (manifest.name, manifest.version, manifest.labels) == ("tiny", "2.1", ("a", "b", "c"))
    assert manifest.accuracy == accuracy
    assert manifest.provenance.source == "m.safetensors"
    assert len(manifest.provenance.sha256) == 64
    assert manifest.provenance.licence == "MIT"
    assert manifest.provenance.libraries["torch"] == torch.__version__.split("+")[0]
    report = json.loads((tmp_path / "tiny.report.json").read_text())
    assert report["passed"]
    assert len(report["cases"]) >= 12
    assert report["max_logits_difference"] <= 1e-4
    assert "max_patches" in capsys.readouterr().out


def test_an_artifact_that_fails_verification_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(verify.TOLERANCE, "float32", -1.0)
    output = tmp_path / "out" / "bad.onnx"
    with pytest.raises(RuntimeError, match="was not written: a difference is over its limit"):
        run(monkeypatch, "--random", "Femto/7", "-o", output, "--opset", "18")
    assert list(output.parent.iterdir()) == []
    assert "mixed all" in capsys.readouterr().out  # the table is still shown


def test_float16_is_half_the_size_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, "--random", "Femto/7", "-o", tmp_path / "half.onnx", "--precision", "float16")
    assert manifest_in(tmp_path / "half.onnx").precision == "float16"
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in VisionTransformer(*decode_variant("Femto/7")).parameters())
    assert 2 * weights < (tmp_path / "half.onnx").stat().st_size < 3 * weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a checkpoint file, or --random"),
        (["x.safetensors", "--random", "B/16"], "name a checkpoint file, or --random"),
        (["missing.safetensors"], "missing.safetensors: no such file"),
        ([__file__], "not a checkpoint: a file of weights ends in"),
        (["--random", "Z/9"], "'Z/9' is not a known variant"),
        (["--random", "H/14"], "export with --precision float16"),
        (["--random", "Femto/7", "--name", "No Spaces"], "'name' must be"),
        (["hf:nothing"], "'hf:nothing' names no checkpoint: a source is"),
        (["torchvision:resnet50"], "torchvision has no Vision Transformer 'resnet50'"),
    ],
)
def test_a_wrong_call_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=f"(?s)^error: .*{message}"):
        run(monkeypatch, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Source, Manifest]]:
    """What would be exported; the export itself has its own tests."""
    seen: list[tuple[Source, Manifest]] = []

    def export(source: Source, manifest: Manifest, output: Path, *_: object, **__: object) -> list[Difference]:
        seen.append((source, manifest))
        output.write_bytes(b"an artifact")
        return []

    monkeypatch.setattr(to_onnx, "export", export)
    return seen


def checkpoint(path: Path, classes: int) -> Path:
    torch.manual_seed(0)
    model = VisionTransformer(*decode_variant("Femto/7", classes=classes))
    native.save(path, model, Description(tuple("abc"[:classes]), "tiny"))
    return path


def test_a_file_overrides_the_labels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exported: list[tuple[Source, Manifest]]
) -> None:
    path, labels = checkpoint(tmp_path / "m.safetensors", 3), tmp_path / "labels.txt"
    labels.write_text("cat\ndog\ncow\n")
    run(monkeypatch, path, "--labels", labels, "-o", tmp_path / "m.onnx")
    assert exported[0][1].labels == ("cat", "dog", "cow")
    labels.write_text("cat\n")
    with pytest.raises(RuntimeError, match="has 1 labels, but the model has 3 classes"):
        run(monkeypatch, path, "--labels", labels)


def test_a_dropped_head_leaves_a_feature_extractor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = checkpoint(tmp_path / "m.safetensors", 3), tmp_path / "m.onnx"
    run(monkeypatch, path, "--drop-head", "--quick-check", "--report", "-o", output)
    names = [case["case"] for case in json.loads((tmp_path / "m.report.json").read_text())["cases"]]
    assert names == ["native", "wide", "tall", "mixed native, one patch"]
    assert manifest_in(output).labels == ()
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["embedding"]
    assert "logits" not in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="--drop-head and --logits-required contradict each other"):
        run(monkeypatch, path, "--drop-head", "--logits-required")


def test_a_checkpoint_without_a_head_is_said_or_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    exported: list[tuple[Source, Manifest]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = checkpoint(tmp_path / "m.safetensors", 0)
    run(monkeypatch, path, "-o", tmp_path / "m.onnx")
    assert "this is a feature extractor" in " ".join(capsys.readouterr().out.split())
    assert exported[0][1].labels == ()
    with pytest.raises(RuntimeError, match="no classification head, so there are no logits"):
        run(monkeypatch, path, "--logits-required")


def test_the_report_says_where_the_weights_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exported: list[tuple[Source, Manifest]]
) -> None:
    monkeypatch.setattr(verify, "report", lambda _: {"passed": True})
    run(monkeypatch, checkpoint(tmp_path / "m.safetensors", 3), "-o", tmp_path / "m.onnx", "--report")
    report = json.loads((tmp_path / "m.report.json").read_text())
    assert report["provenance"]["source"] == "m.safetensors"
    assert report["passed"]


def test_it_runs_as_a_script_and_as_a_module() -> None:
    script = str(Path(to_onnx.__file__))
    for how in ([script], ["-m", "export.to_onnx"]):
        shown = subprocess.run([sys.executable, *how, "--help"], capture_output=True, text=True, check=True)
        assert "--precision" in shown.stdout
