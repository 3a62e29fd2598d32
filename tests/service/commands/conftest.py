from collections.abc import Iterator
from pathlib import Path

import pytest
from commanded import Commands
from served_process import ServedProcess, served
from tiny_artifact import write_artifact

from tests.service.conftest import picture


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.setenv("COLUMNS", "250")
    return Commands(capsys, monkeypatch)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    with served(write_artifact(tmp_path_factory.mktemp("running") / "tiny.onnx")) as process:
        yield process


@pytest.fixture
def url(running: ServedProcess) -> str:
    return f"http://127.0.0.1:{running.port}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, one of them in a folder below."""
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "red.jpg").write_bytes(picture((220, 10, 10), kind="JPEG"))
    (tmp_path / "images" / "deep" / "blue.webp").write_bytes(picture((10, 10, 220), (200, 90), kind="WEBP"))
    return tmp_path / "images"
