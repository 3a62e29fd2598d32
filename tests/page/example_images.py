"""Makes the example images of the page: one of each class, in two colours and several shapes, a few kilobytes each.

    python tests/page/example_images.py

Needs Debian's package `dataset-fashion-mnist`. Of each class it takes the first image of the test set that the bundled
model tells right at every budget in `BUDGETS`, but none with the name of a brand on it: they show how the page works,
not how accurate the model is.
"""

import gzip
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from model.headers import ImageLimits
from model.manifest import METADATA_KEY, Manifest
from model.preprocess import preprocess

DATA = Path("/usr/share/datasets/fashion-mnist")
BUNDLED = Path(__file__).parents[2] / "model" / "bundled"
BUDGETS = (100, 49, 25)
BRANDED = {2: 1}  # by class, how many of the first are passed over
SCALE = 6  # pixels of an example for one of the data set

# name, background and ink (RGB), canvas (width, height)
LOOKS = (
    ("t-shirt", (243, 236, 219), (178, 58, 46), (200, 200)),
    ("trouser", (34, 51, 68), (214, 196, 160), (150, 210)),
    ("pullover", (225, 232, 228), (24, 92, 86), (210, 190)),
    ("dress", (250, 240, 235), (132, 44, 94), (150, 220)),
    ("coat", (52, 46, 42), (222, 170, 96), (180, 210)),
    ("sandal", (235, 238, 242), (146, 84, 40), (230, 160)),
    ("shirt", (28, 64, 92), (236, 232, 220), (190, 200)),
    ("sneaker", (248, 244, 230), (30, 84, 160), (230, 150)),
    ("bag", (44, 60, 48), (226, 150, 120), (200, 190)),
    ("ankle-boot", (240, 232, 226), (70, 48, 40), (200, 200)),
)


def read_test_set() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images [M, 28, 28] and classes [M]."""
    images = gzip.decompress((DATA / "t10k-images-idx3-ubyte.gz").read_bytes())
    classes = gzip.decompress((DATA / "t10k-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(classes, np.uint8, offset=8)


def paint(item: NDArray[np.uint8], back: tuple[int, ...], ink: tuple[int, ...], canvas: tuple[int, int]) -> Image.Image:
    """An item [28, 28] enlarged, in the middle of a canvas, black as `back` and white as `ink`."""
    large = Image.fromarray(item).resize((28 * SCALE, 28 * SCALE), Image.Resampling.BICUBIC)
    grey = Image.new("L", canvas)
    grey.paste(large, ((canvas[0] - large.width) // 2, (canvas[1] - large.height) // 2))
    share = np.clip(np.asarray(grey, np.float32)[..., None] / 200, 0, 1)  # [H, W, 1]; few items are pure white
    return Image.fromarray((np.array(back) * (1 - share) + np.array(ink) * share).astype(np.uint8))


class Judge:
    """The bundled model."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(BUNDLED / "fashion-mnist.onnx")
        text = self._session.get_modelmeta().custom_metadata_map[METADATA_KEY]
        self._spec = Manifest.from_json(text).preprocessing

    def classes(self, data: bytes) -> Iterator[int]:
        """The best class at each of the budgets."""
        for budget in BUDGETS:
            sequence = preprocess(data, self._spec, ImageLimits(), max_patches=budget)
            inputs = {"patches": sequence.patches[None], "grid": np.array([sequence.grid])}
            yield int(np.argmax(self._session.run(["logits"], inputs)[0]))


def main() -> None:
    """Write the examples."""
    images, classes = read_test_set()
    judge = Judge()
    for label, (name, *look) in enumerate(LOOKS):
        for item in images[classes == label][BRANDED.get(label, 0) :]:
            buffer = BytesIO()
            paint(item, *look).save(buffer, "JPEG", quality=85, optimize=True)
            if set(judge.classes(buffer.getvalue())) == {label}:
                break
        (BUNDLED / "examples" / f"{name}.jpg").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
