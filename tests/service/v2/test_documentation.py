"""The commands in docs/open-inference-protocol.md do what stands below them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_process import ServedProcess, environment, served

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "open-inference-protocol.md").read_text("utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def service() -> Iterator[ServedProcess]:
    with served(ROOT / "model" / "bundled" / "fashion-mnist.onnx") as service:
        yield service


def masked(text: str) -> str:
    """Without the digits behind a point, which differ between machines."""
    return re.sub(r"-?\d+\.\d+(e-?\d+)?(?=[,\]:])", "#", text).strip()


def test_every_command_has_its_output() -> None:
    assert len(BLOCKS) == len(re.findall(r"```(?:sh|python)\n", TEXT)) == 5


@pytest.mark.parametrize(("language", "command", "output"), BLOCKS)
def test_what_the_documentation_says(
    service: ServedProcess, tmp_path: Path, language: str, command: str, output: str
) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    runner = ["bash", "-ec"] if language == "sh" else [sys.executable, "-c"]
    command = command.replace("localhost:8000", f"127.0.0.1:{service.port}")
    done = subprocess.run(
        [*runner, command], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert masked(done.stdout) == masked(output)
