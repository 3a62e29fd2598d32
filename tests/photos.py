"""Photographs made by computation: gradients, edges, texture and noise, in any size, the same on every machine."""

from io import BytesIO

import numpy as np
from PIL import Image

SIZES = {
    "portrait": (900, 1600),
    "landscape": (1600, 1067),
    "small": (120, 90),
    "12 megapixels": (4000, 3000),
}


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with detail at every scale, as photographs have (an amplitude that falls with the frequency)."""
    draw = np.random.default_rng(seed)
    quarter = max(1, width // 4), max(1, height // 4)
    pixels = np.zeros((quarter[1], quarter[0], 3), np.float32)
    for side in (4, 8, 16, 32, 64, 128, 256):
        noise = Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8))
        layer = np.asarray(noise.resize(quarter, Image.Resampling.BICUBIC), np.float32)
        pixels += (layer - 128) * (4 / side) ** 0.6
    ys, xs = np.mgrid[: quarter[1], : quarter[0]]
    pixels[(xs * 3 // quarter[0] + ys * 5 // quarter[1]) % 2 == 0] += 60  # hard edges
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 215 + 20
    smooth = np.asarray(Image.fromarray(pixels.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST))
    return Image.fromarray(smooth + draw.integers(-20, 20, smooth.shape, np.int8).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    """The bytes of a JPEG of usual quality."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
