import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from service.disconnects import cancel_when_gone
from service.errors import ClientClosed

pytestmark = pytest.mark.anyio


class Line:
    def __init__(self) -> None:
        self.cut = asyncio.Event()

    async def receive(self) -> Mapping[str, Any]:
        await self.cut.wait()
        return {"type": "http.disconnect"}


async def test_work_ends_when_the_client_leaves() -> None:
    line = Line()
    asyncio.get_running_loop().call_later(0.01, line.cut.set)
    with pytest.raises(ClientClosed), cancel_when_gone(line.receive):
        await asyncio.wait_for(asyncio.Event().wait(), timeout=5)


async def test_work_that_ends_first_is_left_alone() -> None:
    before = len(asyncio.all_tasks())
    with cancel_when_gone(Line().receive):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before, "nothing goes on watching"


async def test_errors_of_the_work_pass() -> None:
    with pytest.raises(KeyError), cancel_when_gone(Line().receive):
        raise KeyError


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        with cancel_when_gone(Line().receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
