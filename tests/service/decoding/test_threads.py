import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tiny_artifact import MANIFEST

from model.headers import ImageLimits, read_header
from service.decoding import threads
from service.decoding.steps import Decoded
from service.decoding.threads import ThreadDecoder, watch_threads
from tests.service.conftest import picture

RED = picture()
HEADER = read_header(RED, ImageLimits())


class Hanging:
    """A decoder that hangs until it is let go, and a clock that stands still."""

    def __init__(self, count: int) -> None:
        self.now_s = 100.0
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.decoder = ThreadDecoder(
            MANIFEST.preprocessing, count, 1.5, exact=False, clock=lambda: self.now_s, decode=self._decode
        )

    def _decode(self, *_: Any, **__: Any) -> Decoded:
        self.begun.release()
        assert self.let_go.wait(20)
        return Decoded(None, 0.0, 0.0)  # type: ignore[arg-type]

    def decode(self) -> None:
        self.decoder.decode(RED, HEADER, (7, 7), lambda: None, 0.0)  # type: ignore[arg-type, return-value]


def test_a_decoder_is_unable_only_when_all_its_threads_are_hung() -> None:
    hanging = Hanging(2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hanging.decode)
        assert hanging.begun.acquire(timeout=20)
        hanging.now_s += 14.0
        assert (hanging.decoder.hung(), hanging.decoder.able()) == (0, True)
        hanging.now_s += 1.0
        assert (hanging.decoder.hung(), hanging.decoder.able()) == (1, True)
        second = pool.submit(hanging.decode)
        assert hanging.begun.acquire(timeout=20)
        assert (hanging.decoder.hung(), hanging.decoder.able()) == (1, True)
        hanging.now_s += 15.0
        assert (hanging.decoder.hung(), hanging.decoder.able()) == (2, False)
        hanging.let_go.set()
        first.result(20)
        second.result(20)
    assert (hanging.decoder.hung(), hanging.decoder.able()) == (0, True)


def test_hung_threads_are_told_when_their_number_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_LOOK_EVERY_S", 0.001)
    hanging = Hanging(1)
    told: list[int] = []

    async def watch() -> None:
        changed = asyncio.Event()

        def tell(count: int) -> None:
            told.append(count)
            changed.set()

        task = asyncio.create_task(watch_threads(hanging.decoder.hung, tell))
        async with asyncio.timeout(20):
            hanging.now_s += 15.0
            await changed.wait()
            changed.clear()
            hanging.let_go.set()
            await changed.wait()
        task.cancel()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hanging.decode)
        assert hanging.begun.acquire(timeout=20)
        asyncio.run(watch())
    assert told == [1, 0]
