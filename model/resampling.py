"""One part of an RGB image resampled to a size, antialiased: by Pillow, or some four times faster by `cykooz_resizer`.

Both convolve with the same filters over the same support, one axis after the other, rounding to 8 bits in between. They
differ in which axis comes first, so by less than half a level on average (docs/preprocessing.md). What is asked for
`exact` is resampled by Pillow, whose bits are those that models were trained on. Thread-safe, no state.

Axes: `H`, `W` height and width in pixels, `C` channels (3, RGB).
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.manifest import Interpolation

try:
    import cykooz_resizer as simd
except ImportError:  # there is no wheel for Linux on aarch64: Pillow resizes everything, slower and just as well
    simd = None

_PILLOW_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# By the package's names. Catmull-Rom is the cubic with a = -0.5, which Pillow calls bicubic.
_SIMD_FILTERS = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}

# `cykooz_resizer` wants the pixels as bytes and copies them once more. The C library gives blocks of several megabytes
# back to the system, so each copy meets fresh pages, and that costs more than the convolution. Measured in decode
# threads, to 224 and 384 pixels: 640x480 takes 0.3 to 0.5 of Pillow's time, 1.4 megapixels 0.3 to 0.8, 1.7 up to 1.1,
# 1.9 up to 1.6 (bilinear to 224), 4.3 up to 2.
SIMD_PIXELS = 1_500_000

Picture = Image.Image | NDArray[np.uint8]  # RGB, as an array [H, W, C]


def size_of(image: Picture) -> tuple[int, int]:
    """(width, height) in pixels."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def resample(
    image: Picture,
    size: tuple[int, int],
    interpolation: Interpolation,
    box: tuple[float, float, float, float],
    *,
    exact: bool,
) -> NDArray[np.uint8]:
    """Resample the part `box` of an RGB image: uint8 [H, W, C].

    Args:
        image: RGB.
        size: (W, H) of the result, pixels.
        interpolation: filter.
        box: (left, top, right, bottom) in pixels of `image`, fractions allowed; its edges also see what is around.
        exact: Pillow's bits.
    """
    if exact or simd is None or math.prod(size_of(image)) > SIMD_PIXELS:
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        return np.asarray(image.resize(size, _PILLOW_FILTERS[interpolation], box))
    return _resample_simd(image, size, interpolation, box)


def _resample_simd(
    image: Picture, size: tuple[int, int], interpolation: Interpolation, box: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    source = simd.ImageData(*size_of(image), simd.PixelType.U8x3, image.tobytes())
    result = simd.ImageData(*size, simd.PixelType.U8x3)
    # A resizer each time: it keeps buffers, so threads must not share it, and making it takes half a microsecond.
    simd.Resizer().resize(source, result, _simd_options(interpolation, box))
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(size[1], size[0], 3)


@lru_cache(maxsize=256)  # many pictures have one of few sizes
def _simd_options(interpolation: Interpolation, box: tuple[float, float, float, float]) -> Any:
    left, top, right, bottom = box
    return simd.ResizeOptions(
        resize_alg=simd.ResizeAlg.convolution(simd.FilterType[_SIMD_FILTERS[interpolation]]),
        crop_box=simd.CropBox(left, top, right - left, bottom - top),
        use_alpha=False,
    )
