"""The JPEGs of the workloads: photograph-like, the same on every machine."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

# Twenty shapes as phones, cameras, screens and the web have them: width x height, pixels.
_MIXED = (
    (224, 224), (256, 256), (320, 240), (240, 320), (400, 300), (500, 375), (375, 500), (640, 480), (480, 640),
    (640, 360), (512, 512), (800, 600), (600, 800), (1024, 768), (768, 1024), (1080, 1080), (1280, 720), (720, 1280),
    (1600, 1200), (2048, 1365),
)  # fmt: skip
_SHAPES: dict[str, Sequence[tuple[int, int]]] = {
    "224x224": ((224, 224),) * 16,
    "1600x1200": ((1600, 1200),) * 16,
    "mixed": _MIXED,
}
WORKLOADS = tuple(_SHAPES)


def photos_in(folder: Path) -> list[bytes]:
    """The files of the workload that the folder is named after, made once."""
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(make_jpegs(folder.name)):
            (partial / f"{index:02}.jpg").write_bytes(image)
        partial.replace(folder)
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def make_jpegs(workload: str) -> list[bytes]:
    """The files of a workload, quality 90."""
    return [_jpeg(*shape, seed) for seed, shape in enumerate(_SHAPES[workload])]


def _jpeg(width: int, height: int, seed: int) -> bytes:
    """Detail whose amplitude falls with its frequency, hard edges and a little noise, as photographs have."""
    draw = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    for side in (3, 6, 12, 25, 50, 100, 200):
        noise = Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8))
        layer = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        pixels += (layer - 128) * (3 / side) ** 0.8
    ys, xs = np.mgrid[:height, :width]
    pixels[(xs * 3 // width + ys * 5 // height + seed) % 3 == 0] += draw.integers(-70, 70, 3)
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 235 + 10
    grain = draw.normal(0, 2.5, (height, width, 1))
    buffer = BytesIO()
    Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
