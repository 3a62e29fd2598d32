import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from service.admission import Ledger
from service.unread import LargeReply

pytestmark = pytest.mark.anyio


class Connection:
    """Takes what is sent, and then nothing until it is read."""

    def __init__(self) -> None:
        self.body = b""
        self.read = asyncio.Event()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if self.body:
            await self.read.wait()
        self.body += message.get("body", b"")

    async def receive(self) -> MutableMapping[str, Any]:
        raise AssertionError("the request has been read")


async def test_bytes_count_until_they_are_read() -> None:
    ledger, connection = Ledger(), Connection()
    reply = LargeReply(b"picture", "image/png", ledger)
    sending = asyncio.create_task(reply({"type": "http"}, connection.receive, connection.send))
    await asyncio.sleep(0.01)
    assert (connection.body, ledger.upload_bytes) == (b"picture", 7)
    connection.read.set()
    await sending
    assert ledger.upload_bytes == 0
    assert (reply.headers["content-length"], reply.headers["content-type"]) == ("7", "image/png")


async def test_bytes_of_a_client_that_is_given_up_do_not_count() -> None:
    ledger, connection = Ledger(), Connection()
    reply = LargeReply(b"picture", "image/png", ledger)
    sending = asyncio.create_task(reply({"type": "http"}, connection.receive, connection.send))
    await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert ledger.upload_bytes == 0
