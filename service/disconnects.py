"""Stop working for a client that has left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import ClientClosed
from service.uploads import Receive


@asynccontextmanager
async def cancel_when_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of the `async with` as soon as the client disconnects; the request must have been read.

    Raises:
        ClientClosed: if it did.
    """
    task = asyncio.current_task()
    assert task is not None, "needs a running task"  # noqa: S101 - our own mistake
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # As asyncio.timeout does it: swallow our own cancellation only, never one from outside.
        if gone and task.uncancel() == 0:
            raise ClientClosed from None
        raise
    finally:
        watcher.cancel()
