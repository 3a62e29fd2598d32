"""Rows E7 and E8 wherever images are taken: a client that leaves before its answer, and those beside it."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from infer_bodies import binary_images
from served_process import Conversation

from .live import CLOSE, HOST, PATCHES, PATIENT, RED, Live, Reply, replies_of

pytestmark = pytest.mark.faults_slow


def _ask(path: bytes, *lines: bytes, body: bytes = RED) -> bytes:
    head = b"".join(line + b"\r\n" for line in (*lines, b"Content-Length: %d" % len(body)))
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + CLOSE + head + b"\r\n" + body


def _infer() -> bytes:
    body, headers = binary_images(RED, parameters={"timeout": 20_000_000})
    lines = [f"{name}: {value}".encode() for name, value in headers.items()]
    return _ask(b"/v2/models/tiny-colours/infer", b"Content-Type: application/octet-stream", *lines, body=body)


_PNG = b"Content-Type: image/png"
WAYS = {
    "explain": _ask(b"/explain?timeout_ms=20000", _PNG),
    "explain, a picture": _ask(b"/explain?timeout_ms=20000", _PNG, b"Accept: image/png"),
    "embed": _ask(b"/embed?timeout_ms=20000", _PNG),
    "infer": _infer(),
}


def send_all(slow: Live, stack: ExitStack, before: int) -> list[Conversation]:
    """One image in each way, all of them accepted, on top of so many that were."""
    conversations = [stack.enter_context(slow.connect()) for _ in WAYS]
    for number, (conversation, request) in enumerate(zip(conversations, WAYS.values(), strict=True), start=before + 1):
        conversation.send(request)
        slow.wait_for("queue_patches", number * PATCHES)
    return conversations


def answer_of(reply: Reply) -> Any:
    """What a reply says of the image, without what differs from request to request."""
    if reply.headers["content-type"] == "image/png":
        return reply.body
    document = json.loads(reply.body)
    return [document.get(name) for name in ("results", "outputs")]


def test_e7_gone_while_queued(slow: Live, run_takes: Callable[[float], None]) -> None:
    """All are dropped when the next batch is built; none of them ever runs."""
    cancelled, runs = slow.count("scheduled_images_total", fate="cancelled"), slow.count("batch_images_sum")
    run_takes(2.5)
    with slow.connect() as first, ExitStack() as stack:
        first.send(PATIENT)
        slow.wait_for("queue_patches", PATCHES)
        leavers = send_all(slow, stack, 1)
        time.sleep(1)  # decoded by now, even on a busy machine
        for each in leavers:
            each.socket.close()
        slow.wait_for("queue_patches", PATCHES)
        slow.wait_for("upload_bytes", len(RED))  # of the first
        first.reply()
    slow.expect_unanswered(client_closed=len(WAYS))
    slow.settle()
    assert slow.count("scheduled_images_total", fate="cancelled") - cancelled == len(WAYS)
    assert slow.count("batch_images_sum") - runs == 1


def test_e8_gone_while_running(slow: Live, run_takes: Callable[[float], None]) -> None:
    """Those who stay get what they get alone, and the work for the others is counted as wasted."""
    alone = [answer_of(slow.say(request)[0]) for request in WAYS.values()]
    wasted, images = slow.count("scheduled_images_total", fate="wasted"), slow.count("batch_images_sum")
    run_takes(1.5)
    with slow.connect() as first, ExitStack() as stack:
        first.send(PATIENT)
        slow.wait_for("queue_patches", PATCHES)
        leavers = send_all(slow, stack, 1)
        mates = send_all(slow, stack, 1 + len(leavers))
        first.reply()  # now all others are in the engine
        for each in leavers:
            each.socket.close()
        replies = [replies_of(each.reply())[0] for each in mates]
    slow.expect_unanswered(client_closed=len(leavers))
    assert [answer_of(reply) for reply in replies] == alone
    assert slow.count("scheduled_images_total", fate="wasted") - wasted == len(leavers)
    assert slow.count("batch_images_sum") - images == 1 + len(leavers) + len(mates)
