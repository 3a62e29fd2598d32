"""Decoding in the threads of this process: fast, behind strict limits on the header, and beyond help once it hangs.

A thread in a C library cannot be stopped. No request waits for a hung one beyond its deadline, no batch and no exit
does, but its place is lost; when all are, the service says so instead of letting one request after the other time out.
"""

import asyncio
import threading
import time
from collections.abc import Callable

from model.headers import ImageHeader
from model.manifest import Preprocessing
from service.decoding.steps import Decoded, Place, decode_and_cut, is_quick

_HUNG_AFTER = 10.0  # times the timeout: a busy machine is no hung decoder
_LOOK_EVERY_S = 1.0


class ThreadDecoder:
    """Decodes in the thread that calls.

    Args:
        spec: of the model.
        threads: how many may call.
        timeout_s: of one image; nothing happens when it is over, see `hung`.
        exact: see `model.preprocess.preprocess`.
        clock: monotonic, seconds.
        decode: the work.
    """

    def __init__(
        self,
        spec: Preprocessing,
        threads: int,
        timeout_s: float,
        *,
        exact: bool,
        clock: Callable[[], float] = time.monotonic,
        decode: Callable[..., Decoded] = decode_and_cut,
    ) -> None:
        self._spec = spec
        self._threads = threads
        self._hung_after_s = _HUNG_AFTER * timeout_s
        self._exact = exact
        self._clock = clock
        self._decode = decode
        self._started_s: dict[int, float] = {}  # by thread

    def decode(
        self, data: bytes, header: ImageHeader, grid: tuple[int, int], place: Place, deadline_s: float
    ) -> Decoded:
        """As `service.decoding.steps.decode_and_cut`."""
        thread = threading.get_ident()
        self._started_s[thread] = self._clock()
        try:
            return self._decode(data, header, self._spec, grid, place, exact=self._exact)
        finally:
            del self._started_s[thread]

    def quick(self, data: bytes, header: ImageHeader) -> bool:
        """As `service.decoding.steps.is_quick`."""
        return is_quick(data, header)

    def hung(self) -> int:
        """Threads that have been with one image for ten times the timeout."""
        if not self._started_s:  # asked several times a request
            return 0
        since = self._clock() - self._hung_after_s
        return sum(started <= since for started in list(self._started_s.values()))

    def able(self) -> bool:
        """Whether any thread can still take an image, now or soon."""
        return len(self._started_s) < self._threads or self.hung() < self._threads

    def close(self) -> None:
        """Nothing: a thread ends by itself, or with the process."""


async def watch_threads(hung: Callable[[], int], tell: Callable[[int], None]) -> None:
    """Tell how many threads are hung, whenever that changes; does not return."""
    before = 0
    while True:
        if (now := hung()) != before:
            tell(now)
            before = now
        await asyncio.sleep(_LOOK_EVERY_S)
