import asyncio
from multiprocessing import Pipe
from typing import Any, cast

import pytest
from structlog.testing import CapturingLogger
from two_processes import until

from service.errors import Internal, NotFound
from service.processes.documents import ReloadCall, ReloadEnd, read_document, write_document
from service.processes.shared_reload import SharedReload
from service.reload import Reloaded

pytestmark = pytest.mark.anyio
DONE = Reloaded("birds", "unchanged", None, None)


class Replica:
    """One whose parent is the test."""

    def __init__(self) -> None:
        self.parent, line = Pipe()
        self.asked: list[str | None] = []
        self.outcome: list[Reloaded] | Exception = [DONE]
        self.log = CapturingLogger()
        shared = SharedReload(line, cast("Any", self.log))
        self.reload_all = shared.share(self._reload)
        shared.open()

    async def heard(self) -> Any:
        """What the parent is told next."""
        await until(self.parent.poll)
        return read_document(self.parent.recv_bytes())

    def tell(self, document: ReloadCall | ReloadEnd) -> None:
        self.parent.send_bytes(write_document(document))

    async def _reload(self, name: str | None) -> list[Reloaded]:
        self.asked.append(name)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


async def test_a_reload_is_asked_of_the_parent() -> None:
    replica = Replica()
    asked = asyncio.create_task(cast("Any", replica.reload_all("birds")))
    assert await replica.heard() == ReloadCall(call=1, name="birds")
    assert replica.asked == []
    replica.tell(ReloadEnd(call=7, reloaded=[]))  # of a call that nobody made
    replica.tell(ReloadEnd(call=1, reloaded=[DONE]))
    assert await asked == [DONE]


@pytest.mark.parametrize(("known", "raised"), [(False, NotFound), (True, Internal)])
async def test_what_the_parent_says_may_be_an_error(known: bool, raised: type[Exception]) -> None:
    replica = Replica()
    asked = asyncio.create_task(cast("Any", replica.reload_all("birds")))
    await replica.heard()
    replica.tell(ReloadEnd(call=1, known=known))
    with pytest.raises(raised):
        await asked


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ([DONE], ReloadEnd(call=3, reloaded=[DONE])),
        (NotFound(), ReloadEnd(call=3, known=False)),
        (KeyError("a bug"), ReloadEnd(call=3)),
    ],
)
async def test_the_parent_is_told_what_came_of_it(outcome: Any, said: ReloadEnd) -> None:
    replica = Replica()
    replica.outcome = outcome
    replica.tell(ReloadCall(call=3, name=None))
    assert await replica.heard() == said
    assert replica.asked == [None]
    assert len(replica.log.calls) == isinstance(outcome, KeyError)
