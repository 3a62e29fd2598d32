"""The images of benchmarks: noise that compresses like a photograph, and real photographs in any size.

The photographs are those that scikit-image and scikit-learn ship; enlarged ones get noise of several scales, so that
their files are as large as a camera's.
"""

import importlib

import numpy as np
from PIL import Image

from service.bench.photos import encode, make_jpegs

__all__ = ["NAMES", "SAMPLES", "encode", "enlarged", "fitted", "make_jpegs", "photographs"]

NAMES = ("astronaut", "coffee", "rocket", "chelsea")  # of scikit-image
SAMPLES = ("china", "flower")  # of scikit-learn


def photographs() -> dict[str, Image.Image]:
    """Real photographs by name, as they are shipped: 451 to 640 pixels wide."""
    data, sample = importlib.import_module("skimage.data"), importlib.import_module("sklearn.datasets")
    shipped = {name: Image.fromarray(getattr(data, name)()) for name in NAMES}
    return shipped | {name: Image.fromarray(sample.load_sample_image(f"{name}.jpg")) for name in SAMPLES}


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest part of this shape around the centre, resized."""
    scale = min(image.width / width, image.height / height)
    wide, high = width * scale, height * scale
    left, top = (image.width - wide) / 2, (image.height - high) / 2
    return image.resize((width, height), Image.Resampling.LANCZOS, (left, top, left + wide, top + high))


def enlarged(image: Image.Image, width: int, height: int, seed: int = 0) -> Image.Image:
    """A photograph at a camera's size: an enlarged one is smooth, so it gets grain of three scales."""
    draw = np.random.default_rng(seed)
    pixels = np.asarray(fitted(image, width, height), np.float32)
    for scale, amplitude in ((4, 8.0), (2, 5.0), (1, 3.0)):
        grain = draw.normal(128, 40, (height // scale, width // scale)).clip(0, 255).astype(np.uint8)
        layer = np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC), np.float32)
        pixels = pixels + ((layer - 128) * (amplitude / 40))[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
