from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photos import photo
from PIL import Image

from model import preprocess as preprocessing
from model.headers import ImageError, ImageLimits, read_header
from model.jpeg import decode_usual_jpeg
from model.manifest import Preprocessing
from model.preprocess import decode, preprocess

LIMITS = ImageLimits()
BLACK = (0, 0, 0)
PICTURE = photo(130, 130)
SPEC = Preprocessing(16, (4, 4), 16, "crop", 72)


def encode(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def by_pillow(data: bytes, at_least: tuple[int, int] | None) -> Any:
    return np.asarray(decode(data, read_header(data, LIMITS), at_least=at_least, background=BLACK))


# --- the same bits ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@given(
    size=st.tuples(st.integers(8, 130), st.integers(5, 130)),
    quality=st.integers(20, 100),
    at_least=st.none() | st.tuples(st.integers(1, 140), st.integers(1, 140)),
)
def test_pixels_are_those_of_pillow(
    mode: str, subsampling: int, size: tuple[int, int], quality: int, at_least: tuple[int, int] | None
) -> None:
    data = encode(PICTURE.crop((0, 0, *size)).convert(mode), quality=quality, subsampling=subsampling)
    pixels = decode_usual_jpeg(data, read_header(data, LIMITS), at_least)
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(data, at_least))


# --- what Pillow shall decide -----------------------------------------------------------------------------------------
def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        encode(photo(64, 48), exif=exif(6)),
        encode(photo(64, 48), progressive=True),
        encode(photo(64, 48).convert("CMYK")),
        encode(photo(1500, 1200), quality=20),
        encode(PICTURE.crop((0, 0, 5, 5))),
        encode(photo(64, 48))[:-40],
        encode(photo(64, 48))[:300] + bytes(200) + encode(photo(64, 48))[500:],
    ],
    ids=["turned", "progressive", "four colours", "large", "tiny", "cut off", "damaged"],
)
def test_the_unusual_is_left_to_pillow(data: bytes) -> None:
    assert decode_usual_jpeg(data, read_header(data, LIMITS), (1, 1) if len(data) < 1000 else None) is None


def test_a_size_that_the_library_reads_otherwise_is_left_to_pillow() -> None:
    data = encode(photo(64, 48))
    header = read_header(encode(photo(48, 64)), LIMITS)
    assert decode_usual_jpeg(data, header, None) is None


@given(where=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=3), cut=st.floats(0.5, 1))
def test_damage_has_the_same_end_with_and_without(where: list[tuple[float, int]], cut: float) -> None:
    damaged = bytearray(encode(photo(96, 80), quality=60))
    for place, value in where:
        damaged[int(place * (len(damaged) - 1))] = value
    data = bytes(damaged[: int(cut * len(damaged))])
    with pytest.MonkeyPatch.context() as patch:
        default = end_of(data)
        patch.setattr(preprocessing, "decode_usual_jpeg", lambda *_: None)
        assert default == end_of(data)


def end_of(data: bytes) -> bytes | str:
    try:
        return preprocess(data, SPEC, LIMITS).patches.tobytes()
    except ImageError as error:
        return str(error)
