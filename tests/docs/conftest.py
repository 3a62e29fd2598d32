"""One service and the files that the pages speak of."""

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commanded import Commands
from data_sets import pictures, write_parquet, write_tar
from page_examples import ROOT, Filling, Shell
from served_process import COMMAND, ServedProcess, environment, served
from tiny_artifact import renamed, write_artifact

MODEL = ROOT / "model" / "bundled" / "fashion-mnist.onnx"
KEY = "patchserve_of-these-tests"


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("things")
    for name in ("tests", "model"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "model.onnx").symlink_to(MODEL)
    (folder / "photos.onnx").symlink_to(MODEL)
    write_artifact(folder / "colours.onnx")
    _write_images(folder)
    _write_models(folder / "models")
    (folder / "keys").write_text(f"{key_line()}\n")
    return folder


def _write_images(folder: Path) -> None:
    (folder / "photos").mkdir()
    for image in (ROOT / "tests" / "data").glob("*.jpg"):
        shutil.copy(image, folder / "photos")
    shutil.copy(ROOT / "tests" / "data" / "bag-224x224.jpg", folder / "photo.jpg")
    (folder / "list.txt").write_text("photo.jpg\nphotos/bag-224x224.jpg\n")
    write_parquet(folder / "train-0.parquet", list(pictures(3).values()))
    for number in range(128):
        write_tar(folder / f"shard-{number:03}.tar", pictures(1))


def _write_models(folder: Path) -> None:
    folder.mkdir()
    (folder / "fashion-mnist.onnx").symlink_to(MODEL)
    for version in ("1.9", "2.0"):
        write_artifact(folder / f"birds-{version}.onnx", renamed(name="birds", version=version))


def key_line() -> str:
    return f"boss:admin:{hashlib.sha256(KEY.encode()).hexdigest()}"


@pytest.fixture
def place(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Those files as the current folder, for one example to write into."""
    folder = tmp_path / "place"
    folder.mkdir()
    for thing in things.iterdir():
        (folder / thing.name).symlink_to(thing)
    (folder / "keys").unlink()
    shutil.copy(things / "keys", folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def service(things: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    """Models of the folder, open to all, with a key for who administers."""
    variables = {"PATCHSERVE_API_KEYS": key_line(), "PATCHSERVE_ALLOW_ANONYMOUS": "true"}
    log = tmp_path_factory.mktemp("log") / "log"  # no terminal, on which SIGHUP would end the service
    with (
        log.open("w") as stderr,
        served(things / "models", default_model="fashion-mnist", variables=variables, stderr=stderr) as process,
    ):
        yield process


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the commands of an installation, and a curl that fails where the service refuses."""
    folder = tmp_path_factory.mktemp("programs")
    curl = shutil.which("curl") or pytest.fail("the examples need curl")
    for name, words in {
        "patchserve": COMMAND,
        "python": [sys.executable],
        "curl": [curl, "--silent", "--show-error", "--fail-with-body"],
    }.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def filled_in(service: ServedProcess) -> Filling:
    """Puts the address, key and process into an example that it leaves to the reader."""

    def fill(text: str) -> str:
        text = text.replace("localhost:8000", f"127.0.0.1:{service.port}").replace("patchserve_...", KEY)
        return re.sub(r"\bPID\b", str(service.process.pid), text)

    return fill


@pytest.fixture
def shell(place: Path, programs: Path) -> Shell:
    """Runs a command of a page: status, standard output, standard error."""
    variables = environment(
        PATH=f"{programs}:/usr/bin:/bin", PYTHONPATH=str(ROOT), PYTHONWARNINGS="error", HF_HUB_OFFLINE="1", KEY=KEY
    )

    def run(command: str) -> tuple[int, str, str]:
        words = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(words, check=False, env=variables, capture_output=True, text=True, timeout=600)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Runs a command of `patchserve` in this process."""
    return Commands(capsys, monkeypatch)
