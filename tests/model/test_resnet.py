"""The baseline trains by its command, on the data of the ViT."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from model import resnet
from model.checkpoints import baseline


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["resnet", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        resnet.main()
    if stopped.value.code not in (None, 0):
        raise RuntimeError(str(stopped.value.code))


def test_it_learns_to_tell_colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (30 + index, 40), colour).save(tmp_path / "data" / name / f"{index}.png")
    arguments = [tmp_path / "data", "--output", tmp_path / "out", "--variant", "R20x0.125", "--image-size", 8]
    run(monkeypatch, *arguments, "--epochs", 3, "--learning-rate", 0.01)
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2, 3]
    assert log[-1]["top1"] == 1.0
    assert baseline.load(tmp_path / "out" / "model.safetensors")[1] == ("blue", "red")
    with pytest.raises(RuntimeError, match="choose another --output"):
        run(monkeypatch, *arguments, "--epochs", 5)


def test_a_side_that_no_patch_fits_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="--image-size 30 is not a multiple of 4 pixels"):
        run(monkeypatch, "--output", tmp_path, "--image-size", 30)
