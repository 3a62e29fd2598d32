"""Row D20 through a model that tells how an image stands: the bundled one."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_images import PNG_MAGIC, chunk, encode, exif, jpeg_with_exif
from PIL import Image

from service.artifacts import bundled_model

from .conftest import watched
from .live import Live, live_service

pytestmark = pytest.mark.faults_slow

PHOTO = Path(__file__).parents[1] / "data" / "ankle-boot-28x28.png"
# How a camera stores a picture with this orientation: the inverse of the turn that the reader makes.
STORED: dict[int, Image.Transpose | None] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_service(bundled_model(), tmp_path_factory.mktemp("bundled")) as live:
        yield live


@pytest.fixture
def live(_service: Live, request: pytest.FixtureRequest) -> Iterator[Live]:
    with watched(_service, request) as live:
        yield live


def stored(orientation: int) -> Image.Image:
    image, turn = Image.open(PHOTO).convert("RGB"), STORED[orientation]
    return image if turn is None else image.transpose(turn)


def as_png(image: Image.Image, tiff: bytes) -> bytes:
    data = encode(image, "PNG")
    return PNG_MAGIC + data[8:33] + chunk(b"eXIf", tiff) + data[33:]


def as_jpeg(image: Image.Image, tiff: bytes) -> bytes:
    return jpeg_with_exif(tiff, encode(image, "JPEG", quality=100, subsampling=0))


def as_webp(image: Image.Image, tiff: bytes) -> bytes:
    return encode(image, "WEBP", lossless=True, exif=tiff)


def logits(live: Live, data: bytes) -> list[float]:
    """By class, but for a number that is the same for all."""
    reply = live.post(data, query=b"?k=10")
    predictions: list[dict[str, Any]] = json.loads(reply.body)["results"][0]["predictions"]
    return [math.log(each["score"]) for each in sorted(predictions, key=lambda each: int(each["index"]))]


@pytest.mark.parametrize("orientation", range(1, 9), ids=lambda each: f"D20 {each}")
@pytest.mark.parametrize("write", [as_png, as_jpeg, as_webp])
def test_turned_pictures_answer_alike(
    live: Live, write: Callable[[Image.Image, bytes], bytes], orientation: int
) -> None:
    """The upright picture in the same format is the measure; JPEG rounds a little differently when it is turned."""
    upright = logits(live, write(stored(1), exif(1)))
    found = logits(live, write(stored(orientation), exif(orientation)))
    tolerance = 0.2 if write is as_jpeg else 1e-3
    assert found == pytest.approx(upright, abs=tolerance)
    assert found.index(max(found)) == upright.index(max(upright))


def test_d20_without_the_turn_the_answer_is_another(live: Live) -> None:
    """Negative control: this model sees how an image stands."""
    upright = logits(live, as_png(stored(1), exif(1)))
    found = [logits(live, as_png(stored(orientation), exif(1))) for orientation in range(2, 9)]
    assert all(each != pytest.approx(upright, abs=0.2) for each in found)
