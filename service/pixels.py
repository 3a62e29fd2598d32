"""How many pixels are being decoded at a time: what bounds the memory of decoding."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from threading import Condition

from model.headers import ImageHeader
from service.allocator import give_back_memory
from service.errors import DeadlineExceeded

_LARGE_PIXELS = 8_000_000  # decoded; after one of these the allocator may keep hundreds of megabytes
_SCALES = (8, 4, 2)  # at which Pillow's draft mode decodes a JPEG


class PixelBudget:
    """Decode threads wait here, in order, until the pixels of their image fit; an image alone always does.

    Args:
        limit: pixels.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = Condition()
        self._waiting: deque[object] = deque()
        self.held = 0

    @contextmanager
    def hold(self, pixels: int, longest_s: float) -> Iterator[None]:
        """Hold that many pixels.

        Raises:
            DeadlineExceeded: if there was no room for them in time.
        """
        self._take(pixels, longest_s)
        try:
            yield
        finally:
            with self._changed:
                self.held -= pixels
                self._changed.notify_all()

    def _take(self, pixels: int, longest_s: float) -> None:
        ticket = object()

        def fits() -> bool:
            return self._waiting[0] is ticket and (self.held == 0 or self.held + pixels <= self._limit)

        with self._changed:
            self._waiting.append(ticket)
            try:
                if not self._changed.wait_for(fits, longest_s):
                    raise DeadlineExceeded
                self.held += pixels
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()


def pixels_to_decode(header: ImageHeader, at_least: tuple[int, int] | None) -> int:
    """Pixels that a decoder has in memory for this image.

    Args:
        header: of the image.
        at_least: (width, height) upright that a JPEG is decoded to at a reduced scale; None: full size.
    """
    width, height = header.upright_size
    if at_least is None or header.format != "JPEG" or header.buffered:
        return width * height
    spare = min(width // at_least[0], height // at_least[1])
    scale = next((each for each in _SCALES if spare >= each), 1)
    return ceil(width / scale) * ceil(height / scale)


def after_decoding(pixels: int) -> None:
    """After a large image: the allocator keeps its memory for the next one otherwise."""
    if pixels >= _LARGE_PIXELS:
        give_back_memory()
