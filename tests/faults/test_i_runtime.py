"""Rows of class I that need a service of their own."""

from pathlib import Path

import pytest

from .conftest import watched
from .live import RED, live_service


@pytest.mark.faults_slow
def test_i11_no_file_can_be_written(artifact: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A full disk and a full log at once: uploads of any size are answered, and the lines that are lost are counted."""
    prefix = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh")
    with live_service(artifact, tmp_path, prefix=prefix) as service:
        lost = service.count("log_lines_lost")
        with watched(service, request) as live:
            for body in (RED, RED + bytes(10_485_760 - len(RED))):
                assert live.post(body).code == "ok"
            assert live.post(b"this is no image").code == "unsupported_media_type"
        assert service.count("log_lines_lost") - lost >= 3
        assert (tmp_path / "log").read_bytes() == b""
        service.process.terminate()
        assert service.process.wait(10) == 0
