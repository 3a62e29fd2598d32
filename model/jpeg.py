"""JPEGs without Pillow's Python around them: the same libjpeg-turbo underneath, and the same bits.

Pillow walks through a JPEG's segments in Python before it decodes, hands it to the library in pieces, taking the
interpreter's lock between them, and copies the pixels out once more. Without that the work of a 224x224 picture, from
its file to its patches, takes 0.46 ms and not 0.80; of a photograph only the locks and the copy count.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from model.headers import ImageHeader
from model.resampling import SIMD_PIXELS

_FEW_PIXELS = 8
_SPACES = frozenset({"YCbCr", "RGB", "Gray"})  # CMYK is converted by Pillow


def decode_usual_jpeg(
    data: bytes | bytearray, header: ImageHeader, at_least: tuple[int, int] | None
) -> NDArray[np.uint8] | None:
    """Decode an upright JPEG of one scan to RGB, at the scale that Pillow's `draft` would choose.

    Args:
        data: the file.
        header: what `model.headers.read_header` found in it.
        at_least: (width, height) that must be left when it is decoded at 1/2, 1/4 or 1/8; None: full size.

    Returns:
        uint8 [H, W, 3]; None if that is large, the file unusual, or anything is wrong with it: what is accepted, and
        with which words the rest is refused, is for Pillow to say.
    """
    width, height = header.width, header.height
    if header.format != "JPEG" or header.orientation != 1 or header.buffered:
        return None
    scale = _scale(width, height, at_least)
    wide, high = -(-width // scale), -(-height // scale)
    # Pillow resizes what is large itself. Of a few pixels, several of the library's scales (n/8) have the same size.
    if wide * high > SIMD_PIXELS or (scale > 1 and max(width, height) < _FEW_PIXELS):
        return None
    try:
        # Two parsers that disagree about a file are how limits are passed by.
        stored_high, stored_wide, space, _ = simplejpeg.decode_jpeg_header(data)
        if (stored_wide, stored_high) != (width, height) or space not in _SPACES:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_width=wide, min_height=high, min_factor=1)
    except Exception:  # noqa: BLE001 - warnings of the library too: see above
        return None
    return pixels if pixels.shape == (high, wide, 3) else None


def _scale(width: int, height: int, at_least: tuple[int, int] | None) -> int:
    """1, 2, 4 or 8, as `PIL.JpegImagePlugin.JpegImageFile.draft` chooses."""
    if at_least is None:
        return 1
    room = min(width // at_least[0], height // at_least[1])
    return next(each for each in (8, 4, 2, 1) if each <= max(room, 1))
