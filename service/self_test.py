"""Image bombs, tried before the service is ready: any code in the process can switch Pillow's limits off."""

import struct
import zlib
from dataclasses import replace
from io import BytesIO
from math import isqrt

from PIL import Image

from model.headers import ImageError, ImageLimits, ImageTooLarge, InvalidImage
from model.manifest import Preprocessing
from model.preprocess import preprocess
from service.errors import StartError

_PILLOWS_SIDE = 50_000  # of an image that Pillow by itself must not open


def check_decoder_limits(spec: Preprocessing, limits: ImageLimits) -> None:
    """Decode what must be refused: by our limits, and by Pillow's, which stand behind them.

    Raises:
        StartError: if something is not refused, or not for its own reason.
    """
    ours, usual = replace(limits, formats=("PNG",)), ImageLimits(formats=("PNG",))
    side = isqrt(limits.max_pixels) + 1
    profile = _chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2 << 20)))
    bombs: list[tuple[str, bytes, ImageLimits, type[ImageError]]] = [
        ("an image of too many pixels", _png(side, side), ours, ImageTooLarge),
        ("an image that is cut off", _png(2, 2, data=_IMAGE_DATA[:4]), usual, InvalidImage),
        ("a colour profile of 2 MB", _png(2, 2, profile), usual, InvalidImage),
    ]
    for what, bomb, bounds, reason in bombs:
        if not _refused(bomb, spec, bounds, reason):
            raise StartError(f"the image decoder does not refuse {what}: other code has changed its limits")
    try:
        Image.open(BytesIO(_png(_PILLOWS_SIDE, _PILLOWS_SIDE)), formats=("PNG",))
    except Image.DecompressionBombError:
        return
    raise StartError("Pillow opens an image bomb: other code has changed PIL.Image.MAX_IMAGE_PIXELS")


def _refused(bomb: bytes, spec: Preprocessing, limits: ImageLimits, reason: type[ImageError]) -> bool:
    try:
        preprocess(bomb, spec, limits)
    except ImageError as error:
        return type(error) is reason
    return False


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_IMAGE_DATA = zlib.compress(bytes(14))  # two rows of two RGB pixels


def _png(width: int, height: int, more: bytes = b"", data: bytes = _IMAGE_DATA) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
