"""Rows of class I that can be seen from outside."""

from pathlib import Path

import pytest

from .conftest import watched
from .live import RED, Live, live_service


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


def test_i14_no_connection_but_those_of_clients(live: Live) -> None:
    """Nothing is asked of a network, a name server included: all sockets are the service's port and what came to it."""
    assert live.post(RED).code == "ok"
    local = sockets_of(live.pid)
    assert live.service.port in local.values()
    assert set(local.values()) == {live.service.port}


def sockets_of(pid: int) -> dict[str, int]:
    """The local port of each socket of TCP or UDP that a process has, by inode."""
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
    own = {each[len("socket:[") : -1] for each in links if each.startswith("socket:[")}
    rows = [
        line.split()
        for kind in ("tcp", "tcp6", "udp", "udp6")
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
    ]
    return {row[9]: int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in own}
