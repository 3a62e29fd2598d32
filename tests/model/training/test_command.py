"""The command: from folders and a checkpoint to a model, with one clear line for what is wrong."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shades import tiny_checkpoint, tiny_model, write_colours

from model import train
from model.checkpoints import native
from model.checkpoints.native import Description


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The message that it leaves with, if any."""
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments), "--device", "cpu", "--precision", "float32"])
    with pytest.raises(SystemExit) as leaving:
        train.main()
    return str(leaving.value.code or "")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def test_a_checkpoint_is_fine_tuned_at_another_resolution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write_colours(tmp_path / "data", 5), tmp_path / "out"
    (data / "red" / "broken.png").write_bytes(b"\x89PNG broken")
    checkpoint = tiny_checkpoint(tmp_path / "old.safetensors")
    options = ["--resolution", 35, "--epochs", 2, "--batch", 4, "--output", output]
    assert run(monkeypatch, data, "--from", checkpoint, *options) == ""
    shown = capsys.readouterr().out
    assert shown.count("broken.png: ") == shown.count("skipped ") == 1
    model, description = native.load(output / "model.safetensors")
    assert description.labels == ("blue", "green", "red")
    assert description.description.startswith("fine-tuned from old.safetensors (sha256 ")
    assert description.licence == "MIT"
    assert description.command.startswith("python -m model.train ")
    assert model.preprocessing.native_grid == (5, 5)
    assert model.config.depth == 2
    assert json.loads((output / "log.jsonl").read_text().splitlines()[1])["epoch"] == 2
    assert "choose another --output" in run(monkeypatch, data, "--from", checkpoint, *options, "--epochs", 3)


def test_a_teacher_is_asked_and_one_of_other_classes_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, output = write_colours(tmp_path / "data", 4), tmp_path / "out"
    native.save(tmp_path / "wise.safetensors", tiny_model(3, seed=2), Description(("blue", "green", "red")))
    options = ["--variant", "Femto/7", "--epochs", 1, "--batch", 4, "--output", output]
    assert run(monkeypatch, data, *options, "--teacher", tmp_path / "wise.safetensors") == ""
    assert "another --output" in run(monkeypatch, data, *options)  # the teacher is part of the recipe
    other = tiny_checkpoint(tmp_path / "other.safetensors")
    assert "cannot teach this model: it knows 5 classes" in run(monkeypatch, data, *options, "--teacher", other)


def test_a_data_set_of_broken_images_alone_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "x.png").write_bytes(b"broken")
    said = run(monkeypatch, tmp_path / "data", "--output", tmp_path / "out", "--variant", "Femto/7")
    assert said.startswith(f"error: {tmp_path / 'data'}: no readable image (2 could not be read): ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "missing.safetensors"], "missing.safetensors: no such file"),
        (["--variant", "Z/9"], "'Z/9' is not a known variant"),
        (["--precision", "float16"], "--precision float16 needs a GPU"),
        (["--freeze"], "--freeze needs --from"),
        (["--resolution", "64"], "--resolution needs --from"),
        (["--from", "missing.safetensors", "--mimetic"], "--mimetic is for random weights"),
        (["--from", "missing.safetensors", "--pooling", "average"], "--pooling is for random weights"),
    ],
)
def test_a_wrong_call_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    data = write_colours(tmp_path / "data", 2)
    monkeypatch.setattr(sys, "argv", ["train", str(data), "--output", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as leaving:
        train.main()
    assert str(leaving.value.code).startswith("error: ")
    assert message in str(leaving.value.code)


def test_two_processes_share_a_batch_and_end_with_one_model(tmp_path: Path) -> None:
    """Connected by gloo."""
    data = write_colours(tmp_path / "data", 8)
    checkpoint = tiny_checkpoint(tmp_path / "old.safetensors")
    options = ["--hold-out", "0.25", "--epochs", "2", "--batch", "6", "--ema-decay", "0.5", "--device", "cpu"]
    words = [data, "--from", checkpoint, *options, "--precision", "float32", "--output", tmp_path / "two"]
    command = [sys.executable, "-m", "model.train", *map(str, words)]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}  # as torchrun sets them
    started = [
        subprocess.Popen(
            command, env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert said[0].count("epoch 2: loss") == 1
    assert said[1] == ""
    model, _ = native.load(tmp_path / "two" / "model.safetensors")
    assert all(bool(torch.isfinite(weight).all()) for weight in model.parameters())
    matrix = json.loads((tmp_path / "two" / "confusion.json").read_text())["rows_show_columns_said"]
    assert [sum(row) for row in matrix] == [2, 2, 2]  # each validation image was counted once
