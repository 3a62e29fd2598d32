from io import BytesIO

import pytest
from PIL import Image

from model.headers import ImageLimits, read_header
from service.decoding.steps import is_quick


def encoded(side: int, name: str = "JPEG", pad: int = 0, *, progressive: bool = False) -> bytes:
    file = BytesIO()
    options = {"progressive": True} if progressive else {}
    Image.new("RGB", (side, side), "red").save(file, name, **options)
    return file.getvalue() + bytes(pad)


@pytest.mark.parametrize(
    ("data", "quick"),
    [
        (encoded(28), True),
        (encoded(316), True),
        (encoded(317), False),
        (encoded(28, pad=1 << 17), False),
        (encoded(28, progressive=True), False),
        (encoded(28, "PNG"), False),
        (encoded(28, "WEBP"), False),
    ],
    ids=["small", "at the limit", "more pixels", "more bytes", "several scans", "PNG", "WebP"],
)
def test_a_small_jpeg_of_one_scan_is_quick(data: bytes, quick: bool) -> None:
    assert is_quick(data, read_header(data, ImageLimits())) is quick
