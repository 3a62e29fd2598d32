"""Serving a checkpoint: exported once, kept, found again; the export itself is replaced except in the last test."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from model.headers import ImageLimits
from model.preprocess import preprocess
from service import artifacts
from service.artifacts import artifact_of, is_checkpoint, is_model_folder
from service.errors import StartError
from service.settings import EngineSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = f"hf:org/vit@{COMMIT}"


class Exporter:
    """Takes the place of the child process: writes what the export command writes."""

    def __init__(self, source: str = SOURCE, wait_s: float = 0.0) -> None:
        self.calls: list[list[str]] = []
        self.source = source
        self.wait_s = wait_s
        self.status = 0

    def __call__(self, command: Sequence[str]) -> int:
        self.calls.append(list(command))
        time.sleep(self.wait_s)
        if self.status == 0:
            output = Path(command[command.index("--output") + 1])
            output.write_bytes(f"export {len(self.calls)}".encode())
            report = {"provenance": {"source": self.source, "sha256": "f" * 64}}
            output.with_suffix(".report.json").write_text(json.dumps(report))
        return self.status


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Exporter:
    exporter = Exporter()
    monkeypatch.setattr(artifacts, "_run", exporter)
    return exporter


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Path]:
    def artifact(model: str = "hf:org/vit", **settings: object) -> Path:
        path = artifact_of(EngineSettings(model=Path(model), cache_dir=tmp_path / "cache", **settings))  # type: ignore[arg-type]
        assert path is not None
        return path

    return artifact


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("hf:google/vit-base-patch16-224", True),
        ("timm:vit_tiny_patch16_224", True),
        ("torchvision:vit_b_16", True),
        ("model.safetensors", True),
        ("model.pth", True),
        ("B_16.npz", True),
        ("model.onnx", False),
        ("no-such-name", False),
    ],
)
def test_what_has_to_be_exported(model: str, expected: bool) -> None:
    assert is_checkpoint(Path(model)) == expected


def test_an_artifact_is_served_as_it_is(exporter: Exporter) -> None:
    assert artifact_of(EngineSettings()) is None
    assert artifact_of(EngineSettings(model=Path("some.onnx"))) == Path("some.onnx")
    assert exporter.calls == []


def test_a_checkpoint_is_exported_once_and_named_by_its_revision(
    exporter: Exporter, serve: Callable[..., Path]
) -> None:
    first = serve(export_options="--precision float16")
    assert first.name == f"{COMMIT}.onnx"
    assert first.read_bytes() == b"export 1"
    (command,) = exporter.calls
    assert command[:6] == [sys.executable, "-m", "export.to_onnx", "hf:org/vit", "--precision", "float16"]
    assert "--logits-required" in command
    assert serve(export_options="--precision float16") == first
    assert len(exporter.calls) == 1
    assert sorted(path.name for path in first.parent.iterdir()) == [".lock", f"{COMMIT}.onnx", "current.json"]


def test_another_source_or_option_is_another_artifact(
    exporter: Exporter, serve: Callable[..., Path], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat")
    checkpoint = tmp_path / "m.safetensors"
    checkpoint.write_bytes(b"1")
    options = f"--labels {labels}"
    found = [serve(), serve("timm:vit"), serve(export_options="--opset 18"), serve(export_options=options)]
    found.append(serve(str(checkpoint)))
    labels.write_text("a dog")
    checkpoint.write_bytes(b"22")
    found += [serve(export_options=options), serve(str(checkpoint))]
    assert len(set(found)) == len(exporter.calls) == 7


def test_the_second_start_needs_no_export_tools(
    exporter: Exporter, serve: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serve()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert serve() == first
    with pytest.raises(StartError, match=r"exporting it needs torch, .*pip install 'patchserve\[export\]'"):
        serve("hf:org/other")


def test_a_refresh_exports_again_and_a_failed_one_changes_nothing(
    exporter: Exporter, serve: Callable[..., Path]
) -> None:
    serve()
    exporter.source = f"hf:org/vit@{'a' * 40}"
    exporter.status = 1
    with pytest.raises(StartError, match="hf:org/vit was not exported: the reason is above"):
        serve(refresh_model=True)
    assert serve().name == f"{COMMIT}.onnx"
    exporter.status = 0
    assert serve(refresh_model=True).name == f"{'a' * 40}.onnx"
    assert serve().read_bytes() == b"export 3"


def test_what_a_killed_export_left_is_neither_served_nor_kept(exporter: Exporter, serve: Callable[..., Path]) -> None:
    artifact = serve()
    (artifact.parent / ".export-dead").mkdir()
    (artifact.parent / "current.json").write_text('{"artifact": "half.onnx"}')
    assert serve().read_bytes() == b"export 2"
    assert not (artifact.parent / ".export-dead").exists()


def test_two_starts_at_once_export_once(exporter: Exporter, serve: Callable[..., Path]) -> None:
    exporter.wait_s = 0.3
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(serve())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exporter.calls) == 1
    assert len(set(found)) == 1
    assert len(found) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"export_options": "--labels 'a"}, "--export-options: No closing quotation"),
        ({"model": "missing.pth"}, r"the model missing\.pth cannot be read: No such file"),
        ({"cache_dir": Path("/proc/no")}, "cannot be written.*--cache-dir"),
    ],
)
def test_what_cannot_be_done_is_one_line(exporter: Exporter, settings: dict[str, object], message: str) -> None:
    given = {"model": "hf:org/vit", "cache_dir": Path("/nowhere")} | settings
    with pytest.raises(StartError, match=message):
        artifact_of(EngineSettings(**given))  # type: ignore[arg-type]


def test_the_cache_is_where_the_desktop_says(
    exporter: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    artifact = artifact_of(EngineSettings(model=Path("hf:org/vit")))
    assert artifact is not None
    assert artifact.is_relative_to(tmp_path / "patchserve")


def test_a_start_that_is_stopped_takes_its_export_along(tmp_path: Path) -> None:
    script = tmp_path / "start.py"
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    script.write_text(f"import sys\nfrom service.artifacts import _run\n_run([sys.executable, '-c', {child!r}])\n")
    with subprocess.Popen([sys.executable, str(script)]) as parent:
        deadline = time.monotonic() + 30
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.slow
def test_from_a_hub_to_the_logits_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    import torch
    from hub_server import COMMIT as HEAD
    from hub_server import Hub, running_hub
    from photos import photo
    from PIL import Image
    from timm.models import save_for_hf

    from service.batching import assemble
    from service.engine import Engine

    torch.manual_seed(0)
    theirs = timm.create_model("test_vit", num_classes=3).eval()
    save_for_hf(theirs, tmp_path / "repo", {"label_names": ["cat", "dog", "cow"]}, safe_serialization=True)
    files = {path.name: path.read_bytes() for path in (tmp_path / "repo").iterdir()}
    for name, value in {"HF_HOME": tmp_path / "home", "OMP_NUM_THREADS": 1, "HF_HUB_OFFLINE": 0}.items():
        monkeypatch.setenv(name, str(value))
    settings = EngineSettings(model=Path("hf:timm/test_vit"), cache_dir=tmp_path / "cache")
    with running_hub(Hub({"timm/test_vit": files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        path = artifact_of(settings)
    assert path is not None
    assert artifact_of(settings) == path  # the hub is gone
    engine = Engine(EngineSettings(model=path))
    manifest = engine.model.manifest
    assert manifest.labels == ("cat", "dog", "cow")
    assert manifest.provenance.source == f"hf:timm/test_vit@{HEAD}"

    image = photo(320, 240)
    image.save(tmp_path / "photo.png")
    sequence = preprocess((tmp_path / "photo.png").read_bytes(), manifest.preprocessing, ImageLimits())
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=theirs))
    with torch.inference_mode():
        expected = theirs(transform(Image.open(tmp_path / "photo.png"))[None])[0].numpy()
    logits = engine.run(*assemble([sequence]))[0]
    assert np.abs(logits - expected).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.onnx", "notes.txt"], True),
        (["model.onnx", "config.json"], False),
        (["model.onnx", "model.safetensors"], False),
        (["model.onnx", "pytorch_model.bin"], False),
        ([], False),
    ],
)
def test_a_folder_is_of_artifacts_or_a_checkpoint(tmp_path: Path, names: list[str], expected: bool) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert is_model_folder(tmp_path) == expected
    assert is_checkpoint(tmp_path) == (not expected)
