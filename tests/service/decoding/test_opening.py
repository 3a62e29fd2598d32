import threading
from dataclasses import replace
from typing import Any

import pytest
from tiny_artifact import MANIFEST

from model.headers import ImageLimits, read_header
from service.decoding import opening
from service.decoding.opening import Decoders
from service.decoding.steps import Decoded
from service.settings import Settings
from tests.service.conftest import picture

RED = picture()
HEADER = read_header(RED, ImageLimits())
SPECS = MANIFEST.preprocessing, replace(MANIFEST.preprocessing, max_patches=50)


class Hanging:
    """Decoders of two kinds that hang until they are let go, on a clock that stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
        hanging = self
        self.now_s = 0.0
        self._begun = threading.Semaphore(0)
        self._let_go = threading.Event()

        class HangingDecoder(opening.ThreadDecoder):
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named, clock=lambda: hanging.now_s, decode=hanging._decode)

        monkeypatch.setattr(opening, "ThreadDecoder", HangingDecoder)
        self.decoders = Decoders(Settings(decode_timeout_s=1), threads, observer=None)  # type: ignore[arg-type]
        self._threads: list[threading.Thread] = []

    def _decode(self, *_: Any, **__: Any) -> Decoded:
        self._begun.release()
        assert self._let_go.wait(20)
        return Decoded(None, 0.0, 0.0)  # type: ignore[arg-type]

    def begin(self, kind: int) -> None:
        """One more thread with an image."""
        decode = self.decoders.open(SPECS[kind]).decode
        place: Any = None
        self._threads.append(threading.Thread(target=decode, args=(RED, HEADER, (7, 7), place, 0.0)))
        self._threads[-1].start()
        assert self._begun.acquire(timeout=20)

    def end(self) -> None:
        self._let_go.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("kinds", [(0, 0), (0, 1)], ids=["in one decoder", "in two"])
def test_decoders_are_lost_when_every_thread_hangs(monkeypatch: pytest.MonkeyPatch, kinds: tuple[int, int]) -> None:
    hanging = Hanging(monkeypatch, threads=2)
    decoders = hanging.decoders
    try:
        hanging.begin(kinds[0])
        hanging.now_s = 10.0
        assert (decoders.lost(), decoders.able()) == (False, True)
        hanging.begin(kinds[1])
        assert (decoders.lost(), decoders.able()) == (False, True)
        hanging.now_s = 20.0
        assert (decoders.lost(), decoders.able()) == (True, False)
    finally:
        hanging.end()
    assert (decoders.lost(), decoders.able()) == (False, True)
