"""Class F of the catalogue, as far as it shows in seconds, and the limits of connections (I13)."""

import threading
import time
from pathlib import Path

import pytest
from served_process import statuses

from .conftest import note_cost
from .live import CLOSE, GET, RAW, RED, Live, live_service
from .test_d_images import large_png


@pytest.mark.faults_slow
def test_f6_many_large_images_at_once(live: Live) -> None:
    """They wait for their turn or are late: memory stays within two of them, and probes are answered."""
    body, codes, slowest = large_png(8, 2), [], 0.0

    def ask() -> None:
        codes.append(live.post(body, query=b"?timeout_ms=20000").code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    before_mb = live.memory_mb()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        started = time.monotonic()
        assert live.service.get("/metrics")[0] == 200
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(0.05)
    assert set(codes) <= {"ok", "overloaded", "deadline_exceeded"}
    assert "ok" in codes
    assert live.memory_mb("VmHWM") - before_mb < 1000
    assert slowest < 0.5
    live.late = codes.count("deadline_exceeded")


def test_i13_connections_beyond_the_limit(artifact: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With 200 open files: a crowd of 400 keeps no probe out, others get 429, and all is well when it has gone."""
    prefix = ("sh", "-c", 'ulimit -n 200; exec "$@"', "sh")
    with live_service(artifact, tmp_path, prefix=prefix) as live:
        crowd = [live.service.connect() for _ in range(400)]
        started = time.monotonic()
        for _ in range(10):
            assert statuses(live.service.say(GET + CLOSE + b"\r\n", wait_s=2)) == [200]
        assert time.monotonic() - started < 2
        request_bytes = RAW + CLOSE + b"Content-Length: %d\r\n\r\n" % len(RED) + RED
        assert statuses(live.service.say(request_bytes, wait_s=1)) == [429]
        for each in crowd:
            each.socket.close()
        until = time.monotonic() + 5
        while live.state().gauges["patchserve_open_connections"] > 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert statuses(live.service.say(request_bytes, wait_s=2)) == [200]
        note_cost(request, 412, 0)
