"""Every example of docs/client.md runs: Python as it stands, commands as processes, both against a running service."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_process import COMMAND, ServedProcess, environment, served

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
ADDRESS = "localhost:8000"
MODEL = ROOT / "model" / "bundled" / "fashion-mnist.onnx"


def blocks(kind: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """What stands behind each prompt."""
    return [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]


@pytest.fixture(scope="module")
def service() -> Iterator[ServedProcess]:
    with served(MODEL) as process:
        yield process


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The files that the page speaks of."""
    (tmp_path / "photos").mkdir()
    for image in sorted((ROOT / "tests" / "data").glob("*.jpg")):
        shutil.copy(image, tmp_path / "photos")
    shutil.copy(ROOT / "tests" / "data" / "bag-224x224.jpg", tmp_path / "photo.jpg")
    shutil.copy(MODEL, tmp_path / "model.onnx")
    return tmp_path


def run(command: list[str], place: Path) -> str:
    variables = environment(PYTHONPATH=str(ROOT), PYTHONWARNINGS="error")
    done = subprocess.run(command, check=False, cwd=place, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_examples() -> None:
    assert len(blocks("python")) >= 7
    assert {command.split()[1] for command in commands()} == {"classify", "models", "inspect", "bench"}


@pytest.mark.parametrize("program", blocks("python"))
def test_a_program_runs(program: str, service: ServedProcess, place: Path) -> None:
    assert ADDRESS in program
    out = run([sys.executable, "-c", program.replace(ADDRESS, f"127.0.0.1:{service.port}")], place)
    assert bool(out) == ("print(" in program)
    assert "failed" not in out


@pytest.mark.parametrize("command", commands())
def test_a_command_runs(command: str, service: ServedProcess, place: Path) -> None:
    name, *arguments = shlex.split(command.replace(ADDRESS, f"127.0.0.1:{service.port}"))
    assert name == "patchserve"
    assert run([*COMMAND, *arguments], place)
    assert ("report.html" in command) == (place / "report.html").exists()
