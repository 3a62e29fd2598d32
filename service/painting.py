"""The picture of an explanation, made in a decode thread: the upload is decoded again, by a decoder of the settings.

As patches of one pixel a picture takes the way of every image: behind the same limits, in a worker that can be killed
if that is the setting, and no larger than it has to be.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from model.headers import ImageError, ImageHeader
from model.manifest import Preprocessing
from model.preprocess import enough
from service.decoding.steps import Decoder
from service.errors import DeadlineExceeded, from_image_error
from service.overlay import MOST_SIDE, Box, overlay, picture_size
from service.pixels import PixelBudget, after_decoding, pixels_to_decode
from service.settings import ImageSettings


class Painter:
    """Paints one picture at a time for each decode thread.

    Args:
        settings: of images.
        pool: the decode threads.
        pixels: what they may hold together.
        open_decoder: for pictures; opened when the first one is wanted.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        settings: ImageSettings,
        pool: ThreadPoolExecutor,
        pixels: PixelBudget,
        open_decoder: Callable[[Preprocessing], Decoder],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._pixels = pixels
        self._open_decoder = open_decoder
        self._clock = clock

    async def paint(
        self,
        data: bytes,
        header: ImageHeader,
        background: tuple[int, int, int],
        shares: NDArray[np.float32],
        region: Box,
        deadline_s: float,
    ) -> bytes:
        """The PNG.

        Args:
            data: the upload.
            header: of it.
            background: RGB under transparent pixels.
            shares: float32 [rows, columns].
            region: what they are of, pixels of the upright upload.
            deadline_s: on the clock.

        Raises:
            RequestError: if there is no time left, or the file cannot be decoded at this size.
        """
        spec = Preprocessing(1, (1, 1), MOST_SIDE * MOST_SIDE, "aspect", background=background)
        work = asyncio.get_running_loop().run_in_executor(
            self._pool, self._paint, data, header, spec, shares, region, deadline_s
        )
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock())):
                return await work
        except TimeoutError:
            raise DeadlineExceeded from None
        except ImageError as error:
            raise from_image_error(error, self._settings.image_limits()) from None

    def _paint(
        self,
        data: bytes,
        header: ImageHeader,
        spec: Preprocessing,
        shares: NDArray[np.float32],
        region: Box,
        deadline_s: float,
    ) -> bytes:
        size, decoder = picture_size(*header.upright_size), self._open_decoder(spec)
        pixels = pixels_to_decode(header, None if self._settings.exact_decode else enough(header, spec, size))
        with self._pixels.hold(pixels, deadline_s - self._clock()):
            try:
                decoded = decoder.decode(data, header, size, lambda: _place(size), deadline_s)
            finally:
                after_decoding(pixels)
        scale = size[1] / header.upright_size[0], size[0] / header.upright_size[1]
        box = (region[0] * scale[0], region[1] * scale[1], region[2] * scale[0], region[3] * scale[1])
        return overlay(decoded.sequence.patches.reshape(*size, 3), shares, box)


def _place(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.empty((size[0] * size[1], 3), np.uint8)
