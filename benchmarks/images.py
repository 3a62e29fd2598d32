"""The images of benchmarks: noise that compresses like a photograph, and real photographs in any size.

The photographs are those that scikit-image and scikit-learn ship; enlarged ones get noise of several scales, so that
their files are as large as a camera's.
"""

import importlib
from io import BytesIO

import numpy as np
from PIL import Image

NAMES = ("astronaut", "coffee", "rocket", "chelsea")  # of scikit-image
SAMPLES = ("china", "flower")  # of scikit-learn


def make_jpegs(width: int, height: int, count: int = 8) -> list[bytes]:
    """Noise of several scales: compresses like a photograph, unlike flat colour or white noise."""
    draw = np.random.default_rng(0)
    files = []
    for _ in range(count):
        layers = [
            np.asarray(
                Image.fromarray(draw.integers(0, 256, (max(1, height // scale), max(1, width // scale), 3), np.uint8))
                .resize((width, height), Image.Resampling.BICUBIC)
            ) * weight
            for scale, weight in ((64, 0.5), (16, 0.3), (4, 0.15), (1, 0.05))
        ]  # fmt: skip
        files.append(encode(Image.fromarray(np.sum(layers, axis=0).clip(0, 255).astype(np.uint8))))
    return files


def encode(image: Image.Image, *, quality: int = 90, progressive: bool = False) -> bytes:
    """A JPEG with the colour subsampling of cameras, 4:2:0."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality, progressive=progressive, subsampling="4:2:0")
    return buffer.getvalue()


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
