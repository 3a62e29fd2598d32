"""The decoder of the settings."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from model.manifest import Preprocessing
from service.decoding.processes import ProcessDecoder, WorkerObserver
from service.decoding.steps import Decoder, warm_up_decoders
from service.decoding.threads import ThreadDecoder, watch_threads
from service.settings import Settings


def open_decoder(settings: Settings, spec: Preprocessing, threads: int, observer: WorkerObserver) -> Decoder:
    """A decoder that is warm.

    Args:
        settings: everything that can be chosen.
        spec: of the model.
        threads: that call it.
        observer: told about worker processes.

    Raises:
        StartError: if they do not start.
    """
    if settings.decode_isolation == "thread":
        warm_up_decoders(spec, settings.formats)
        return ThreadDecoder(spec, threads, settings.decode_timeout_s, exact=settings.exact_decode)
    decoder = ProcessDecoder(settings, spec, settings.max_body_bytes, threads, observer)
    decoder.open()
    return decoder


@asynccontextmanager
async def kept(decoder: Decoder, threads_hung: Callable[[int], None]) -> AsyncIterator[None]:
    """Watch a decoder while it is used, and close it afterwards."""
    watch = asyncio.create_task(watch_threads(decoder, threads_hung)) if isinstance(decoder, ThreadDecoder) else None
    try:
        yield
    finally:
        if watch is not None:
            watch.cancel()
        decoder.close()
