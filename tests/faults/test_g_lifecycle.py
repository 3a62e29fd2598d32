"""Rows of class G about the end of the process, with everything in one process and with several."""

import signal
from pathlib import Path

import pytest
from fault_costs import note_cost
from served_process import Conversation

from .live import HEAD, RED, Live, live_service, replies_of, slow_command

pytestmark = [pytest.mark.faults_slow, pytest.mark.parametrize("http_workers", [1, 2])]


def half_sent(live: Live) -> Conversation:
    """A request that the service has begun to read."""
    conversation = live.connect()
    conversation.send(HEAD + RED[:10])
    live.wait_for("upload_bytes", 10)
    return conversation


def test_g3_a_half_sent_body_at_the_end(
    artifact: Path, tmp_path: Path, http_workers: int, request: pytest.FixtureRequest
) -> None:
    """408 at the deadline of the body, long before the grace is over, and the exit does not wait for more."""
    timeouts = {"body_timeout_s": 1.5, "upload_grace_s": 1.5, "shutdown_grace_s": 60}
    with live_service(artifact, tmp_path, http_workers=http_workers, **timeouts) as live:
        with half_sent(live) as conversation:
            live.process.send_signal(signal.SIGTERM)
            (reply,) = replies_of(conversation.reply())
        assert reply.code == "upload_timeout"
        assert live.process.wait(10) == 0
    note_cost(request, 1, 0)


def test_g3_a_body_that_drips_at_the_end(
    artifact: Path, tmp_path: Path, http_workers: int, request: pytest.FixtureRequest
) -> None:
    """503 when the grace is over, whatever the body's own deadline."""
    timeouts = {"body_timeout_s": 60, "upload_grace_s": 60, "shutdown_grace_s": 1}
    with live_service(artifact, tmp_path, http_workers=http_workers, **timeouts) as live:
        with half_sent(live) as conversation:
            live.process.send_signal(signal.SIGTERM)
            for each in RED[10:20]:
                conversation.send(bytes([each]))
            (reply,) = replies_of(conversation.reply())
        assert reply.code == "draining"
        assert live.process.wait(10) == 0
    note_cost(request, 1, 0)


def test_g4_a_request_longer_than_the_grace(
    artifact: Path, tmp_path: Path, http_workers: int, request: pytest.FixtureRequest
) -> None:
    """503, never 500; an engine that is still at work does not hold the exit."""
    commands = tmp_path / "commands"
    commands.write_text("")
    command = slow_command(artifact, commands)
    with live_service(artifact, tmp_path, command=command, http_workers=http_workers, shutdown_grace_s=1) as live:
        commands.write_text("slow 30")
        with live.connect() as conversation:
            conversation.send(HEAD.replace(b"/classify", b"/classify?timeout_ms=30000") + RED)
            live.wait_for("queue_patches", 49)
            live.process.send_signal(signal.SIGTERM)
            (reply,) = replies_of(conversation.reply())
        assert reply.code == "draining"
        assert live.process.wait(10) == 0
    note_cost(request, 1, 1)
