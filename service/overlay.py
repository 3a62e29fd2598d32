"""A picture with the attention over it: PNG, in the picture's own aspect. `H`, `W` pixels; grids are (rows, columns).

Only the region that the model has seen is painted, so of a model that crops the edges stay as they are.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_SIDE = 1024  # pixels
_STRENGTH = 0.75  # of the colour where attention is highest
# From cold to hot: dark violet, magenta, orange, pale yellow, each brighter than the one before.
_ANCHORS = np.array([[30, 10, 70], [150, 30, 110], [240, 110, 40], [255, 245, 160]])
_PLACES = np.linspace(0, 255, len(_ANCHORS))
_COLOURS = np.stack([np.interp(np.arange(256), _PLACES, channel) for channel in _ANCHORS.T], 1).astype(np.uint8)

Box = tuple[float, float, float, float]  # left, top, right, bottom


def picture_size(width: int, height: int) -> tuple[int, int]:
    """(rows, columns) of pixels: the picture's own, or smaller in the same aspect."""
    scale = min(1.0, MOST_SIDE / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def picture_bytes(width: int, height: int) -> int:
    """What the picture of an image takes before it is packed."""
    rows, columns = picture_size(width, height)
    return 3 * rows * columns


def overlay(pixels: NDArray[np.uint8], shares: NDArray[np.float32], region: Box) -> bytes:
    """A PNG.

    Args:
        pixels: uint8 [H, W, 3].
        shares: float32 [rows, columns], at least 0.
        region: what they are of, pixels.
    """
    picture = Image.fromarray(pixels)
    heat = _spread(shares, picture.size, region)
    colours = Image.fromarray(_COLOURS[np.asarray(heat)])
    file = BytesIO()
    Image.composite(colours, picture, heat.point(lambda value: value * _STRENGTH)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _spread(shares: NDArray[np.float32], size: tuple[int, int], region: Box) -> Image.Image:
    """Shares of patches as the heat of pixels, 0 to 255, smooth between patches and 0 outside of the region."""
    left, top = max(0, round(region[0])), max(0, round(region[1]))
    right, bottom = max(left + 1, round(region[2])), max(top + 1, round(region[3]))
    low, high = float(shares.min()), float(shares.max())
    even = 255 * (shares - low) / (high - low) if high > low else np.zeros_like(shares)
    inner = Image.fromarray(even.round().astype(np.uint8))
    heat = Image.new("L", size)
    heat.paste(inner.resize((right - left, bottom - top), Image.Resampling.BILINEAR), (left, top))
    return heat
