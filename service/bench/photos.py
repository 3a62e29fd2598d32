"""The images of a bench: those of a folder, or noise that compresses like photographs."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from service.commands.image_files import expand
from service.errors import StartError


def read_folder(folder: Path) -> list[bytes]:
    """All image files of a folder and below, held in memory.

    Raises:
        StartError: if there is none, or one cannot be read.
    """
    try:
        return [path.read_bytes() for path in expand([folder])]
    except OSError as error:
        raise StartError(f"{error.filename} cannot be read: {error.strerror}") from None


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
