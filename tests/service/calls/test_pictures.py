from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.calls.failures import UnreadableImage
from service.calls.pictures import bytes_of, media_type_of, name_of

RED = Image.new("RGB", (6, 4), (204, 0, 0))  # a colour that the palette of mode P has
PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def decoded(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def test_files_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"any bytes")
    with path.open("rb") as file:
        given = [path, str(path), b"any bytes", bytearray(b"any bytes"), memoryview(b"any bytes"), file]
        assert [bytes_of(picture) for picture in given] == [b"any bytes"] * 6  # type: ignore[arg-type]


def test_arrays_and_pictures_lose_nothing() -> None:
    for picture in (PIXELS, Image.fromarray(PIXELS)):
        sent = decoded(bytes_of(picture))
        assert sent.format == "PNG"
        assert np.array_equal(np.asarray(sent), PIXELS)
    for pixels in (PIXELS[..., 0], np.dstack([PIXELS, PIXELS[..., :1]]), PIXELS[::-1, ::2]):
        assert np.array_equal(np.asarray(decoded(bytes_of(pixels))), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_pictures_of_usual_modes_can_be_sent(mode: str) -> None:
    sent = decoded(bytes_of(Image.new("I;16", (6, 4)) if mode == "I;16" else RED.convert(mode)))
    assert sent.size == (6, 4)
    if mode not in {"1", "L", "LA", "I;16"}:
        assert np.allclose(np.asarray(sent.convert("RGB"))[0, 0], (204, 0, 0), atol=3)


def test_a_picture_is_turned_as_the_service_turns_its_file() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    buffer = BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, "JPEG", exif=exif)
    assert decoded(bytes_of(Image.open(buffer))).size == (4, 6)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Path("missing.jpg"), "No such file"),
        ("a\0b", "not a path"),
        (Path("/"), "directory"),
        (StringIO("text"), "open it with mode 'rb'"),
        (42, "int is no image"),
        (None, "NoneType is no image"),
        (PIXELS.astype(np.float32), "array of float32"),
        (PIXELS[..., :2], r"\[5, 7, 2\] is no image"),
        (PIXELS[:0], "is no image"),
        (np.zeros(3, np.uint8), "is no image"),
        (Image.new("F", (2, 2)), "mode F"),
    ],
)
def test_what_cannot_be_sent_is_said(wrong: Any, why: str) -> None:
    with pytest.raises(UnreadableImage, match=why):
        bytes_of(wrong)


def test_a_closed_file_is_one_error_of_ours() -> None:
    file = BytesIO(b"x")
    file.close()
    with pytest.raises(UnreadableImage, match="cannot be read"):
        bytes_of(file)


def test_the_declared_type_is_an_image_whatever_it_is() -> None:
    assert media_type_of(b"\xff\xd8\xff\xe0") == "image/jpeg"
    assert media_type_of(b"\x89PNG\r\n") == "image/png"
    assert media_type_of(b"RIFF0000WEBP") == "image/webp"
    assert media_type_of(b"") == media_type_of(b"?") == "image/x"


def test_names_for_messages() -> None:
    assert [name_of(Path("a/b.jpg")), name_of("c.png"), name_of(b"")] == ["a/b.jpg", "c.png", "bytes"]
