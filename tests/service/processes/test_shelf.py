import asyncio
from typing import Any

import pytest
from two_processes import NAME, loaded, of_shelf, shelf_with, until

from service.loaded import Loaded
from service.processes.shelf import Shelf

pytestmark = pytest.mark.anyio


def test_no_number_comes_twice_in_any_life() -> None:
    seen: set[int] = set()
    for life in (1, 2, 3):
        shelf = shelf_with(life, loaded("sha256:1"))
        for _ in range(5):
            shelf.put(NAME, of_shelf([loaded("sha256:1")]))  # the same file, opened again
            seen |= shelf.current
    assert len(seen) == 15


def test_the_catalogue_says_what_requests_may_choose() -> None:
    new, old = loaded("sha256:2", version="2"), loaded("sha256:1", version="1")
    shelf = shelf_with(1, new, old)
    first = shelf.catalogue()
    assert [each.digest for each in first.names[NAME]] == ["sha256:2", "sha256:1"]
    assert (first.default, first.names[NAME][0].manifest) == (NAME, new.manifest.to_json())
    shelf.put(NAME, of_shelf([new]))
    second = shelf.catalogue()
    assert second.names[NAME] == first.names[NAME][:1]
    assert second.revision > first.revision


async def test_what_is_replaced_is_closed_when_nobody_holds_it() -> None:
    old, new = loaded("sha256:1"), loaded("sha256:2")
    shelf = shelf_with(1, old)
    [number] = shelf.current
    shelf.put(NAME, of_shelf([new]))
    shelf.release(frozenset({number}))
    await asyncio.sleep(0)
    assert (old.closed, shelf.find(number) is not None) == (False, True)
    shelf.release(frozenset())
    await until(lambda: old.closed)
    assert shelf.find(number) is None
    assert not new.closed


async def test_a_version_is_looked_after_as_long_as_it_is_there() -> None:
    looked_after: list[Any] = []

    async def watch(each: Loaded) -> None:
        looked_after.append(each)
        try:
            await asyncio.Event().wait()
        finally:
            looked_after.remove(each)

    old, new = loaded("sha256:1"), loaded("sha256:2")
    shelf = Shelf(1, NAME, watch)
    shelf.put(NAME, of_shelf([old]))
    shelf.open()
    await until(lambda: looked_after == [old])
    shelf.put(NAME, of_shelf([new]))
    await until(lambda: looked_after == [old, new])
    shelf.release(frozenset())
    await until(lambda: looked_after == [new])
    await shelf.close()
    await until(lambda: looked_after == [])
    assert new.queue.closed
