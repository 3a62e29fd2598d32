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
_COLOURS = np.array([[30, 10, 70], [150, 30, 110], [240, 110, 40], [255, 245, 160]], np.float32)

Box = tuple[float, float, float, float]  # left, top, right, bottom


def picture_size(width: int, height: int) -> tuple[int, int]:
    """(rows, columns) of pixels: the picture's own, or smaller in the same aspect."""
    scale = min(1.0, MOST_SIDE / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def overlay(pixels: NDArray[np.uint8], shares: NDArray[np.float32], region: Box) -> bytes:
    """A PNG.

    Args:
        pixels: uint8 [H, W, 3].
        shares: float32 [rows, columns], at least 0.
        region: what they are of, pixels.
    """
    heat = _spread(shares, pixels.shape[:2], region)
    places = heat * (len(_COLOURS) - 1)
    low = np.minimum(places.astype(np.int64), len(_COLOURS) - 2)
    between = (places - low)[..., None]
    colours = _COLOURS[low] * (1 - between) + _COLOURS[low + 1] * between
    weight = (_STRENGTH * heat)[..., None]
    file = BytesIO()
    Image.fromarray((pixels * (1 - weight) + colours * weight).round().astype(np.uint8)).save(
        file, "PNG", compress_level=1
    )
    return file.getvalue()


def _spread(shares: NDArray[np.float32], size: tuple[int, int], region: Box) -> NDArray[np.float32]:
    """Shares of patches as heat of pixels, 0 to 1: float32 [H, W], smooth between patches, 0 outside of the region."""
    height, width = size
    left, top = max(0, round(region[0])), max(0, round(region[1]))
    right, bottom = min(width, max(left + 1, round(region[2]))), min(height, max(top + 1, round(region[3])))
    low, high = float(shares.min()), float(shares.max())
    even = (shares - low) / (high - low) if high > low else np.zeros_like(shares)
    inner = Image.fromarray(even).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    heat = np.zeros(size, np.float32)
    heat[top:bottom, left:right] = np.asarray(inner)
    return heat
