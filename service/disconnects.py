"""Stop working for a client that has left."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ClientClosed
from service.uploads import Receive

# A task for each request that watches for its client costs the loop more than it saves where the answer comes at once.
_PATIENCE_S = 0.02


@contextmanager
def cancel_when_gone(receive: Receive) -> Iterator[None]:
    """Cancel the body of the `with` soon after the client disconnects; the request must have been read.

    Raises:
        ClientClosed: if it did.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "needs a running task"  # noqa: S101 - our own mistake
    gone = False
    watcher: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch())

    timer = loop.call_later(_PATIENCE_S, begin)
    try:
        yield
    except asyncio.CancelledError:
        # As asyncio.timeout does it: swallow our own cancellation only, never one from outside.
        if gone and task.uncancel() == 0:
            raise ClientClosed from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
