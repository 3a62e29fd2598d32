"""The three protocols on pictures of three colours, which any features tell apart."""

import json
import sys
from pathlib import Path

import pytest
from shades import tiny_checkpoint, write_colours

from model import transfer


def test_the_command_measures_all_protocols(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, test = write_colours(tmp_path / "data", 4), write_colours(tmp_path / "test", 2, shift=5)
    (data / "red" / "broken.png").write_bytes(b"broken")
    checkpoint, report = tiny_checkpoint(tmp_path / "old.safetensors"), tmp_path / "report.json"
    words = ["transfer", checkpoint, data, test, "--shots", "1,4", "--l2", "1", "--epochs", "2", "--report", report]
    words += ["--protocols", "few-shot,linear,full"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit) as leaving:
        transfer.main()
    assert not leaving.value.code
    found = json.loads(report.read_text())
    assert [(each["protocol"], each["images"]) for each in found] == [
        ("1-shot", 3), ("4-shot", 12), ("linear", 12), ("full", 12)
    ]  # fmt: skip
    assert found[1]["top1"] == 1.0
    assert all(0 <= each["top1"] <= 1 for each in found)
    assert "4-shot" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"no such data set; it must be a folder of class folders"),
        (["--protocols", "few-shot,some-shot"], "--protocols some-shot: there are few-shot, linear, full"),
    ],
)
def test_a_wrong_call_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], message: str
) -> None:
    places = [str(tmp_path / "no"), str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["transfer", "missing.safetensors", *places, *words])
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        transfer.main()
