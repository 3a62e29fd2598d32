"""The command draws every figure, says what it left out, and writes the numbers that it drew."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import figures
from model.checkpoints import native
from model.checkpoints.native import Description
from model.variants import decode_variant
from model.vit import VisionTransformer


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["figures", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        figures.main()
    if stopped.value.code not in (None, 0):
        raise RuntimeError(str(stopped.value.code))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for index in range(3):
        pixels = draw.integers(0, 256, (30 + 9 * index, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "photos"


def checkpoint(path: Path, variant: str) -> Path:
    torch.manual_seed(0)
    model = VisionTransformer(*decode_variant(variant, classes=2))
    native.save(path, model, Description(("a", "b"), "tiny"))
    return path


def test_everything_is_drawn_and_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = checkpoint(tmp_path / "m.safetensors", "Femto/7"), tmp_path / "out"
    run(monkeypatch, source, "--images", photos, "--output", output, "--shown", 2)
    for name in ("filters", "positions", "distance", "rollout"):
        with Image.open(output / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 2, f"{name} is blank"
    arrays = np.load(output / "figures.npz")
    shapes = {name: arrays[name].shape for name in arrays.files}
    assert shapes == {
        "filters": (28, 7, 7, 3),
        "filters_variance": (28,),
        "positions": (4, 4, 4, 4),
        "distance": (6, 2),
    }
    document = json.loads((output / "figures.json").read_text())
    assert (document["model"], document["images"]) == ("tiny", 3)
    assert document["distance"] == arrays["distance"].tolist()
    assert list(document["rollout"]) == ["0.png", "1.png"]
    assert np.sum(document["rollout"]["0.png"]) == pytest.approx(1)
    assert "skipped" in document["notes"][0]
    assert "broken.jpg" in document["notes"][0]
    assert "from 3 images" in capsys.readouterr().out


def test_what_a_model_has_not_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photos: Path
) -> None:
    source, output = checkpoint(tmp_path / "m.safetensors", "R8+Femto/8:relative"), tmp_path / "out"
    run(monkeypatch, source, "--images", photos, "--output", output, "--limit", 1, "--shown", 0)
    files = {"distance.png", "figures.json", "figures.npz", "filters.png"}
    assert {path.name for path in output.iterdir()} == files
    notes = json.loads((output / "figures.json").read_text())["notes"]
    assert notes == ["no figure of positions: those of this model are 'relative'"]


def test_a_wrong_call_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photos: Path) -> None:
    source = checkpoint(tmp_path / "m.safetensors", "Femto/7")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ((tmp_path / "none.safetensors", "--images", photos), "no such file"),
        ((source, "--images", tmp_path / "empty"), "expected a folder with images"),
    ):
        with pytest.raises(RuntimeError, match=f"error: .*{message}"):
            run(monkeypatch, *arguments, "--output", tmp_path / "out")
    for path in photos.glob("*.png"):
        path.unlink()
    with pytest.raises(RuntimeError, match=r"error: no readable image: skipped .*broken\.jpg"):
        run(monkeypatch, source, "--images", photos, "--output", tmp_path / "out")
