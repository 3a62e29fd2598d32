import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from service import cli
from service.keys import Role, find_key, read_keys
from service.settings import AccessSettings

from .conftest import picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "red.jpg").write_bytes(picture((220, 10, 10), kind="JPEG"))
    (tmp_path / "blue.webp").write_bytes(picture((10, 10, 220), (200, 90), kind="WEBP"))
    (tmp_path / "broken.png").write_bytes(picture()[:-30])
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["patchserve", *arguments])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    captured = capsys.readouterr()
    return int(leaving.value.code or 0), captured.out, captured.err


def test_files_become_a_table(
    folder: Path, artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    status, out, err = run(capsys, monkeypatch, "classify", "red.jpg", "blue.webp", "--model", str(artifact), "-k", "1")
    assert (status, err) == (0, "")
    rows = [re.split(r"\s*│\s*", line.strip("│ ")) for line in out.splitlines() if "%" in line]
    assert [(row[0], row[2]) for row in rows] == [("red.jpg", "red"), ("blue.webp", "blue")]


def test_a_bad_file_is_one_line_while_the_others_answer(
    folder: Path, artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(folder / name) for name in ("broken.png", "red.jpg", "missing.png")]
    status, out, err = run(capsys, monkeypatch, "classify", *names, "--model", str(artifact), "--json")
    assert status == 1
    broken, red, missing = json.loads(out)
    assert red["predictions"][0]["label"] == "red"
    assert red["patches"] == red["grid"][0] * red["grid"][1] == 49
    assert broken["error"]
    assert missing["error"] == "No such file or directory"
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["patchserve", names[0]], ["patchserve", names[2]]]


def test_fewer_patches_may_be_asked_for(
    folder: Path, artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["classify", str(folder / "blue.webp"), "--model", str(artifact), "--json", "--max-patches", "9"]
    [result] = json.loads(run(capsys, monkeypatch, *arguments)[1])
    assert result["patches"] <= 9
    assert result["predictions"][0]["label"] == "blue"


def test_a_missing_model_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run(capsys, monkeypatch, "classify", str(folder / "red.jpg"), "--model", "nowhere.onnx")
    assert (status, out) == (1, "")
    assert err == "patchserve: the model nowhere.onnx cannot be read: No such file or directory\n"


def test_the_version_is_that_of_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, monkeypatch, "--version") == (0, f"patchserve {version('patchserve')}\n", "")


def test_a_new_key_is_shown_apart_from_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run(capsys, monkeypatch, "key", "new", "shop", "--role", "admin", "--rate", "100/second")
    assert status == 0
    [key] = re.findall(r"patchserve_\S+", err)
    assert key not in out
    (tmp_path / "keys").write_text(out)
    [read] = read_keys(AccessSettings(api_keys_file=tmp_path / "keys"))
    assert (read.name, read.role, read.rate) == ("shop", Role.ADMIN, "100/second")
    assert find_key([read], key.encode()) == read


@pytest.mark.parametrize("arguments", [["a b"], ["shop", "--role", "root"], ["shop", "--rate", "often"]])
def test_a_key_that_no_file_could_hold_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run(capsys, monkeypatch, "key", "new", *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("patchserve: this key: a ")
