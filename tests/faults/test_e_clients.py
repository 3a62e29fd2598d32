"""Class E of the catalogue: slow, broken and vanishing clients."""

import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from .live import GET, HOST, PATCHES, PATIENT, RAW, RED, Live, replies_of

LENGTH = b"Content-Length: %d\r\n\r\n" % len(RED)


def test_e1_silence(live: Live) -> None:
    with live.connect() as conversation:
        assert conversation.everything(3) == b""
        assert conversation.socket.recv(1) == b"", "closed by the server"


def test_e2_headers_that_drip(live: Live) -> None:
    with live.connect() as conversation:
        for byte in GET[:14]:
            conversation.send(bytes([byte]))
            time.sleep(0.05)
        conversation.everything(3)
    assert [reply.code for reply in live.replies()] == ["upload_timeout"]


def test_e3_a_body_that_drips(live: Live) -> None:
    with live.connect() as conversation:
        conversation.send(RAW + b"Content-Length: 100000\r\n\r\n")
        for _ in range(20):
            conversation.send(b"x")
            time.sleep(0.04)
        conversation.everything(3)
    assert [reply.code for reply in live.replies()] == ["upload_timeout"]


def test_e4_two_thousand_silent_connections(live: Live) -> None:
    crowd = [live.service.connect() for _ in range(2000)]
    try:
        started = time.monotonic()
        assert [live.say(GET + b"Connection: close\r\n\r\n")[0].code for _ in range(20)] == ["ok"] * 20
        assert time.monotonic() - started < 2, "100 ms for each probe"
        assert live.post(RED).code == "ok"
    finally:
        for each in crowd:
            each.socket.close()


def test_e5_a_client_that_does_not_read(live: Live) -> None:
    """It asks for page after page and takes none: the service closes, whether the client notices or not."""
    with live.service.connect() as conversation:
        conversation.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conversation.socket.settimeout(0.2)
        with suppress(OSError):
            while True:
                conversation.socket.sendall(b"GET /docs HTTP/1.1\r\n" + HOST + b"\r\n")
        until = time.monotonic() + 5
        while live.state().gauges["patchserve_open_connections"] > 1 and time.monotonic() < until:  # the scrape's own
            time.sleep(0.05)
        assert live.state().gauges["patchserve_open_connections"] == 1
    live.settle()
    live.expect_unanswered(**(live.state().outcomes - live.before.outcomes))


def test_e6_gone_while_sending(live: Live) -> None:
    with live.connect() as conversation:
        conversation.send(RAW + LENGTH + RED[:10])
    live.expect_unanswered(client_closed=1)


def test_e6_half_closed(live: Live) -> None:
    """A client that leaves does the same, so it may get its answer or not."""
    with live.connect() as conversation:
        conversation.send(RAW + LENGTH + RED)
        conversation.socket.shutdown(socket.SHUT_WR)
        received = conversation.everything(3)
    live.settle()
    codes = [reply.code for reply in replies_of(received)]
    ended = live.state().outcomes - live.before.outcomes  # it may be gone when its answer is written
    assert (codes, ended) in (([], {"client_closed": 1}), ([], {"ok": 1}), (["ok"], {"ok": 1}))
    live.expect_unanswered(**({} if codes else ended))


@pytest.mark.faults_slow
def test_e7_gone_while_queued(slow: Live, run_takes: Callable[[float], None]) -> None:
    """It is dropped when the next batch is built, and never runs."""
    cancelled, runs = slow.count("scheduled_images_total", fate="cancelled"), slow.count("batch_images_sum")
    run_takes(2.5)
    with slow.connect() as first, slow.connect() as second:
        first.send(PATIENT)
        slow.wait_for("queue_patches", PATCHES)
        second.send(PATIENT)
        slow.wait_for("queue_patches", 2 * PATCHES)
        time.sleep(1.5)  # decoded by now, even on a busy machine
        second.socket.close()
        slow.wait_for("queue_patches", PATCHES)
        first.reply()
    slow.expect_unanswered(client_closed=1)
    slow.settle()
    assert slow.count("scheduled_images_total", fate="cancelled") - cancelled == 1
    assert slow.count("batch_images_sum") - runs == 1


@pytest.mark.faults_slow
def test_e8_gone_while_running(slow: Live, run_takes: Callable[[float], None]) -> None:
    """The batch goes on, the others in it get what they get alone, and the work is counted as wasted."""
    wasted = slow.count("scheduled_images_total", fate="wasted")
    runs, images = slow.count("batches_total", outcome="ok"), slow.count("batch_images_sum")
    run_takes(0.8)
    with slow.connect() as first, slow.connect() as leaver, slow.connect() as mate:
        first.send(PATIENT)
        slow.wait_for("queue_patches", PATCHES)
        leaver.send(PATIENT)
        mate.send(PATIENT)
        slow.wait_for("queue_patches", 3 * PATCHES)
        first.reply()  # now the other two are in the engine
        leaver.socket.close()
        (reply,) = replies_of(mate.reply())
    slow.expect_unanswered(client_closed=1)
    assert json.loads(reply.body)["results"][0]["predictions"] == slow.golden
    assert slow.count("scheduled_images_total", fate="wasted") - wasted == 1
    assert slow.count("batches_total", outcome="ok") - runs == 2
    assert slow.count("batch_images_sum") - images == 3


def test_e9_reset(live: Live) -> None:
    """Whether the reply was written before the reset came is chance; either way it is one outcome and no error."""
    with live.service.connect() as conversation:
        conversation.send(RAW + LENGTH + RED)
        conversation.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    live.settle()
    ended = live.state().outcomes - live.before.outcomes
    assert ended.total() == 1
    assert set(ended) <= {"ok", "client_closed"}
    live.expect_unanswered(**ended)
