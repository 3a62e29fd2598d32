# ruff: noqa: E501 - one case a line
"""Class D of the catalogue: image decode. `hostile_images` makes the files; here they meet a running service."""

import struct
import zlib
from collections.abc import Callable
from functools import partial

import pytest
from hostile_images import (
    CASES,
    HOSTILE_EXIF,
    PNG_MAGIC,
    Case,
    chunk,
    cmyk,
    encode,
    exif,
    ihdr,
    jpeg_segment,
    jpeg_with,
    jpeg_with_exif,
    jpeg_with_scans,
    lying_jpeg,
    picture,
    png_with,
    riff,
    vp8l,
    vp8x,
    webp_frame,
)
from PIL import Image

from .live import Live


def large_png(depth: int, colour: int, extra: bytes = b"", side: int = 7000, filtering: int = 0) -> bytes:
    """49 Mpx of zeros."""
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth
    packer = zlib.compressobj(1)
    row = bytes([filtering]) + bytes((side * bits + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return PNG_MAGIC + ihdr(side, side, depth, colour) + extra + chunk(b"IDAT", rows) + chunk(b"IEND")


def small_frame_on_a_large_canvas() -> bytes:
    frame = webp_frame(picture())
    size = (47).to_bytes(3, "little") + (31).to_bytes(3, "little")
    inner = b"VP8L" + struct.pack("<I", len(frame)) + frame + b"\0" * (len(frame) % 2)
    return riff(
        (b"VP8X", vp8x(7000, 7000, 2)),
        (b"ANIM", b"\0" * 6),
        (b"ANMF", b"\0" * 6 + size + b"\x0a\0\0\0" + inner),
    )


def packed(kind: bytes, head: bytes, count: int) -> bytes:
    return png_with(chunk(kind, head + zlib.compress(b"\xff" * 1_000_000)) * count)


def dearest_jpeg() -> bytes:
    """As many passes over as many coefficients as the limits allow, in 0.4 MB."""
    jpeg = encode(Image.new("CMYK", (7000, 7000)), "JPEG", progressive=True)
    return jpeg_with_scans(20 - jpeg.count(b"\xff\xda"), jpeg)


MORE: tuple[tuple[str, Callable[[], bytes], str], ...] = (
    ("D1 PNG, RGB, 49 Mpx", partial(large_png, 8, 2), "ok"),
    ("D1 PNG, 16-bit grey with a transparent value, 49 Mpx", partial(large_png, 16, 0, chunk(b"tRNS", b"\0\1")), "ok"),
    ("D1 PNG, RGBA turned by EXIF, 49 Mpx", partial(large_png, 8, 6, chunk(b"eXIf", exif(6))), "ok"),
    ("D5 progressive JPEG claims 7000x7000", lambda: lying_jpeg(7000, 7000, jpeg_with_scans(9)), "ok"),
    ("D5 baseline JPEG claims 7000x7000", partial(lying_jpeg, 7000, 7000), "ok"),
    ("D8 progressive JPEG in CMYK, 49 Mpx, 20 scans", dearest_jpeg, "ok"),
    ("D6 WebP claims 7000x7000", lambda: riff((b"VP8L", vp8l(7000, 7000))), "invalid_image"),
    (
        "D6 WebP of one colour, 49 Mpx",
        lambda: encode(Image.new("RGB", (7000, 7000)), "WEBP", lossless=True, method=0),
        "ok",
    ),
    ("D9 baseline JPEG, 48 Mpx", lambda: encode(Image.linear_gradient("L").resize((8000, 6000)).convert("RGB"), "JPEG", quality=90), "ok"),
    ("D14 WebP frame on a canvas of 49 Mpx", small_frame_on_a_large_canvas, "ok"),
    ("D16 CMYK, 36 Mpx", lambda: encode(Image.new("CMYK", (6000, 6000)), "JPEG"), "ok"),
    ("D16 CMYK with Exif", lambda: jpeg_with_exif(exif(6), cmyk()), "ok"),
    ("D17 PNG, 16-bit RGBA, each value from three others, 49 Mpx", partial(large_png, 16, 6, filtering=4), "ok"),
    ("D17 PNG, 16-bit RGBA", partial(large_png, 16, 6, b"", 50), "ok"),
    *(
        (f"D20 PNG: {name}", partial(png_with, chunk(b"eXIf", tiff)), "ok")
        for name, tiff in HOSTILE_EXIF.items()
    ),
    ("D20 900 Exif segments", lambda: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0" + bytes(10_000)) * 900), "image_too_large"),
    ("D24 64 texts of 1 MB that are no UTF-8", partial(packed, b"iTXt", b"x\0\1\0\0\0", 64), "ok"),
    ("D24 4,000 of them", partial(packed, b"iTXt", b"x\0\1\0\0\0", 4000), "image_too_large"),
    ("D24 pixels that inflate to 200 MB", lambda: PNG_MAGIC + ihdr(2, 2) + chunk(b"IDAT", zlib.compress(bytes(200_000_000), 9)) + chunk(b"IEND"), "ok"),
    ("D32 4 million restart markers", lambda: encode(picture(), "JPEG")[:-2] + b"\xff\xd0" * 4_000_000 + b"\xff\xd9", "ok"),
    ("D32 9 MB of fill bytes", lambda: jpeg_with((b"\xff" * 1_000_000 + jpeg_segment(0xFE, b"x")) * 9), "invalid_image"),
    ("D32 9 MB of Photoshop resources", lambda: jpeg_with(jpeg_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5400) * 140), "ok"),
)  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if len(case.row) > 1], ids=str)
def test_case(live: Live, case: Case) -> None:
    assert live.post(case.build(), kind=b"image/jpeg").code == (case.code or "ok")


@pytest.mark.faults_slow
@pytest.mark.parametrize(("build", "code"), [each[1:] for each in MORE], ids=[each[0] for each in MORE])
def test_more(live: Live, build: Callable[[], bytes], code: str) -> None:
    assert live.post(build(), kind=b"image/jpeg").code == code
