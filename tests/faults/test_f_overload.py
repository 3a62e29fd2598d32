"""Class F of the catalogue, as far as it shows in seconds, and the limits of connections (I13)."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_costs import note_cost
from served_process import statuses

from benchmarks.arrivals import Answers, Pool, constant, send_at

from .conftest import QUEUED
from .live import CLOSE, GET, PATCHES, PATIENT, RAW, RED, Live, live_service, replies_of
from .test_d_images import large_png


@pytest.mark.faults_slow
def test_f4_a_burst_of_four_times_the_bound(slow: Live, run_takes: Callable[[float], None]) -> None:
    """Exactly the bound is accepted, what is in the engine included; the others are told when to come again."""
    run_takes(1.0)
    crowd = [slow.connect() for _ in range(4 * QUEUED)]
    for each in crowd:
        each.send(PATIENT)
    replies = [replies_of(each.reply())[0] for each in crowd]
    for each in crowd:
        each.socket.close()
    assert Counter(reply.code for reply in replies) == {"ok": QUEUED, "overloaded": 3 * QUEUED}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies if reply.code == "overloaded")


@pytest.mark.faults_slow
def test_f7_deadlines_that_the_queue_does_not_leave(slow: Live, run_takes: Callable[[float], None]) -> None:
    """They are refused at the door because of the predicted wait: none is late, and the engine never sees them."""
    images = slow.count("batch_images_sum")
    run_takes(1.0)
    patient = [slow.connect() for _ in range(1 + QUEUED // 2)]
    patient[0].send(PATIENT)
    patient[0].reply()  # from now on the speed is known
    for each in patient[1:]:
        each.send(PATIENT)
    slow.wait_for("queue_patches", PATCHES * (len(patient) - 1))
    codes = {slow.post(RED, query=b"?timeout_ms=500").code for _ in range(50)}
    assert codes == {"overloaded"}
    for each in patient[1:]:
        each.reply()
        each.socket.close()
    patient[0].socket.close()
    assert slow.count("batch_images_sum") - images == len(patient)


@pytest.mark.faults_slow
def test_f10_probes_at_ten_times_the_capacity(slow: Live, run_takes: Callable[[float], None]) -> None:
    """33 images a second, 330 come: every probe is answered. How fast, `benchmarks.overload` measures."""
    codes: Counter[str] = Counter()

    def note(status: int, body: bytes) -> None:
        codes["ok" if status == 200 else json.loads(body)["code"] if body else "lost"] += 1

    async def overload() -> None:
        pool = Pool("127.0.0.1", slow.service.port, Answers(), note)
        await send_at(pool, constant(33 * QUEUED, 3), [PATIENT])
        await pool.settle(20)
        pool.close()

    run_takes(0.3)
    load = threading.Thread(target=asyncio.run, args=(overload(),))
    load.start()
    probes = 0
    while load.is_alive():
        for path in ("/livez", "/readyz", "/metrics"):
            assert slow.service.get(path)[0] == 200
            probes += path != "/metrics"
        time.sleep(0.02)
    slow.expect_unanswered(**(codes + Counter(ok=probes)))
    assert codes.keys() == {"ok", "overloaded"}
    assert codes["overloaded"] > 5 * codes["ok"]
    assert probes > 50


@pytest.mark.faults_slow
def test_f6_many_large_images_at_once(live: Live) -> None:
    """They wait for their turn or are late: memory stays within two of them, and probes are answered."""
    body, codes = large_png(8, 2), []

    def ask() -> None:
        codes.append(live.post(body, query=b"?timeout_ms=20000").code)

    threads = [threading.Thread(target=ask) for _ in range(100)]
    before_mb = live.memory_mb()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert live.service.get("/metrics")[0] == 200
        time.sleep(0.05)
    assert set(codes) <= {"ok", "overloaded", "deadline_exceeded"}
    assert "ok" in codes
    assert live.memory_mb("VmHWM") - before_mb < 1000
    live.late = codes.count("deadline_exceeded")


def test_i13_connections_beyond_the_limit(artifact: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With 200 open files: a crowd of 400 keeps no probe out, others get 429, and all is well when it has gone."""
    prefix = ("sh", "-c", 'ulimit -n 200; exec "$@"', "sh")
    with live_service(artifact, tmp_path, prefix=prefix) as live:
        crowd = [live.service.connect() for _ in range(400)]
        for _ in range(10):
            assert statuses(live.service.say(GET + CLOSE + b"\r\n", wait_s=2)) == [200]
        request_bytes = RAW + CLOSE + b"Content-Length: %d\r\n\r\n" % len(RED) + RED
        assert statuses(live.service.say(request_bytes, wait_s=1)) == [429]
        for each in crowd:
            each.socket.close()
        until = time.monotonic() + 5
        while live.state().gauges["patchserve_open_connections"] > 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert statuses(live.service.say(request_bytes, wait_s=2)) == [200]
        note_cost(request, 412, 0)
