"""The decoders of the settings: one for each way of preprocessing, so models that share one share its decoder."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from model.manifest import Preprocessing
from service.decoding.processes import ProcessDecoder
from service.decoding.steps import Decoder, warm_up_decoders
from service.decoding.threads import ThreadDecoder, watch_threads
from service.settings import Settings

if TYPE_CHECKING:
    from service.observers import DecodeObserver


class Decoders:
    """Opens decoders and keeps them to the end of the process; thread-safe.

    Args:
        settings: everything that can be chosen.
        threads: that call them.
        observer: told about decoding.
    """

    def __init__(self, settings: Settings, threads: int, observer: "DecodeObserver") -> None:
        self._settings = settings
        self.threads = threads
        self.observer = observer
        self._lock = threading.Lock()
        self._open: dict[Preprocessing, Decoder] = {}

    def open(self, spec: Preprocessing) -> Decoder:
        """A warm decoder; the first of its kind takes a moment, and starts processes if that is the setting.

        Raises:
            StartError: if they do not start.
        """
        with self._lock:
            if spec not in self._open:
                self._open[spec] = self._open_new(spec)
            return self._open[spec]

    def able(self) -> bool:
        """Whether every decoder can take the next image."""
        return not self.lost() and all(decoder.able() for decoder in list(self._open.values()))

    def lost(self) -> bool:
        """Whether every decode thread hangs in one decoder or another: nothing but a new process helps."""
        return self._hung() >= self.threads

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Watch the decoders while they are used, and close them afterwards."""
        watching = asyncio.create_task(watch_threads(self._hung, self.observer.threads_hung))
        try:
            yield
        finally:
            watching.cancel()
            for decoder in self._open.values():
                decoder.close()

    def _hung(self) -> int:
        return sum(each.hung() for each in list(self._open.values()) if isinstance(each, ThreadDecoder))

    def _open_new(self, spec: Preprocessing) -> Decoder:
        settings = self._settings
        if settings.decode_isolation == "thread":
            warm_up_decoders(spec, settings.formats)
            return ThreadDecoder(spec, self.threads, settings.decode_timeout_s, exact=settings.exact_decode)
        decoder = ProcessDecoder(settings, spec, settings.max_body_bytes, self.threads, self.observer)
        decoder.open()
        return decoder
