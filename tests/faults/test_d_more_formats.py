"""Rows of class D for the formats that are not accepted by default: GIF and BMP, in a service that takes them."""

import json
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hostile_images import animation, encode, picture
from PIL import Image

from .conftest import watched
from .live import Live, live_service

pytestmark = pytest.mark.faults_slow


@pytest.fixture(scope="module")
def _service(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    limits = {"max_timeout_ms": 20_000, "default_timeout_ms": 20_000}
    with live_service(artifact, tmp_path_factory.mktemp("formats"), formats="JPEG,PNG,WEBP,GIF,BMP", **limits) as live:
        yield live


@pytest.fixture
def live(_service: Live, request: pytest.FixtureRequest) -> Iterator[Live]:
    with watched(_service, request) as live:
        yield live


def gif(width: int, height: int, *blocks: bytes, flags: int = 0x80) -> bytes:
    """A GIF of two colours, black and white; without blocks it has no frame."""
    colours = b"\0\0\0\xff\xff\xff" if flags & 0x80 else b""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, 0, 0) + colours + b"".join(blocks) + b";"


def frame(left: int, top: int, width: int, height: int, codes: bytes = b"\x44\x01", depth: int = 2) -> bytes:
    """Black pixels: clear, one pixel, end."""
    return b"," + struct.pack("<HHHHBB", left, top, width, height, 0, depth) + bytes([len(codes)]) + codes + b"\0"


def comments(count: int) -> bytes:
    return (b"!\xfe" + b"\xff" + b"x" * 255 + b"\0") * count


def many_frames(count: int) -> bytes:
    """A red frame of 32x24 and blue ones after it: 900 bytes a frame, as in the catalogue's 8.9 MB."""
    red, blue = (Image.new("RGB", (32, 24), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    two = encode(red, "GIF", save_all=True, append_images=[blue])
    second = two.rindex(b"!\xf9")
    return two[:second] + (comments(3) + two[second:-1]) * (count - 1) + b";"


def bmp(**fields: int) -> bytes:
    """A 24-bit BMP with some fields of its header changed: offset in the file to 32-bit value."""
    data = bytearray(encode(picture(), "BMP"))
    for offset, value in fields.items():
        struct.pack_into("<i", data, int(offset[1:]), value)
    return bytes(data)


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "D13 GIF of 10,000 frames": (partial(many_frames, 10_000), "ok"),
    "D13 animated GIF": (partial(animation, "GIF"), "ok"),
    "D13 GIF without a frame": (partial(gif, 2, 2), "invalid_image"),
    "D13 GIF claims 65535x65535": (lambda: gif(65535, 65535, frame(0, 0, 2, 2)), "image_too_large"),
    "D13 small frame on a canvas of 49 Mpx": (lambda: gif(7000, 7000, frame(0, 0, 1, 1)), "ok"),
    "D13 frame larger than its canvas": (lambda: gif(2, 2, frame(0, 0, 7000, 7000)), "invalid_image"),
    "D13 frame beyond its canvas": (lambda: gif(9, 9, frame(65000, 65000, 2, 2)), "image_too_large"),
    "D13 frame of no size": (lambda: gif(9, 9, frame(0, 0, 0, 0)), "invalid_image"),
    "D13 codes of 12 bits at once": (lambda: gif(9, 9, frame(0, 0, 9, 9, b"\xff" * 255, 12)), "invalid_image"),
    "D13 code size 255": (lambda: gif(9, 9, frame(0, 0, 9, 9, b"\xff" * 255, 255)), "invalid_image"),
    "D13 no palette": (lambda: gif(9, 9, frame(0, 0, 1, 1), flags=0), "ok"),
    "D13 9 MB of comments": (lambda: gif(2, 2, comments(35_000), frame(0, 0, 1, 1)), "image_too_large"),
    "D13 9 MB of nothing": (lambda: gif(2, 2, b"\0" * 9_000_000, frame(0, 0, 1, 1)), "image_too_large"),
    "D13 cut in half": (lambda: encode(picture(), "GIF")[:400], "invalid_image"),
    "D23 BMP": (bmp, "ok"),
    "D23 BMP from the top": (lambda: bmp(_22=-32), "ok"),
    "D23 BMP claims 7001x7001": (lambda: bmp(_18=7001, _22=7001), "invalid_image"),
    "D23 BMP claims 65000x65000": (lambda: bmp(_18=65000, _22=65000), "image_too_large"),
    "D23 BMP of negative width": (lambda: bmp(_18=-48), "invalid_image"),
    "D23 BMP of the lowest height": (lambda: bmp(_22=-(2**31)), "image_too_large"),
    "D23 BMP of run lengths": (lambda: bmp(_30=1), "invalid_image"),
    "D23 BMP with its pixels beyond its end": (lambda: bmp(_10=2**31 - 1), "invalid_image"),
    "D23 BMP with its pixels in its header": (lambda: bmp(_10=0), "ok"),
    "D23 BMP of a header of 4 GB": (lambda: bmp(_14=-1), "invalid_image"),
    "D23 BMP of 4 billion colours": (lambda: bmp(_46=-1), "ok"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "code"), FILES.values(), ids=FILES)
def test_file(live: Live, build: Callable[[], bytes], code: str) -> None:
    assert live.post(build(), kind=b"image/gif").code == code


@pytest.mark.parametrize(
    "build", [partial(many_frames, 10_000), partial(animation, "GIF")], ids=["D13 many", "D13 few"]
)
def test_the_first_frame_counts(live: Live, build: Callable[[], bytes]) -> None:
    reply = json.loads(live.post(build(), kind=b"image/gif").body)
    assert reply["results"][0]["predictions"][0]["label"] == "red"
