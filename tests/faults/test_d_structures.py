# ruff: noqa: E501 - one case a line
"""Class D of the catalogue once more: files taken apart at their own joints, and put together wrongly.

No more is promised of such a file than 200, 415 or 422. Which of them is what the decoders of today make of it: another
version may judge otherwise, and should be looked at when it does.
"""

import struct
import zlib
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hostile_images import (
    PNG_MAGIC,
    chunk,
    cmyk,
    encode,
    exif,
    find_segment,
    ihdr,
    jpeg_segment,
    jpeg_with,
    jpeg_with_exif,
    lying_jpeg,
    picture,
    png,
    png_with,
    riff,
    vp8x,
    webp_frame,
    webp_of,
)

from .live import MARKER, Live

pytestmark = pytest.mark.faults_slow

JPEG = encode(picture(), "JPEG")
PROGRESSIVE = encode(picture(), "JPEG", progressive=True)


# --- JPEG -----------------------------------------------------------------------------------------------------------
def joints(data: bytes) -> list[int]:
    """Where the segments of a JPEG begin, and where its image data does."""
    found, position = [0, 2], 2
    while data[position + 1] != 0xDA:
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
        found.append(position)
    return [*found, position + 2 + int.from_bytes(data[position + 2 : position + 4])]


def without(marker: int, data: bytes = JPEG) -> bytes:
    """A JPEG without its segments of this kind."""
    parts = [data[start:end] for start, end in pairwise(joints(data))]
    return b"".join(part for part in parts if part[1] != marker) + data[joints(data)[-1] :]


def patched(marker: int, offset: int, new: bytes, data: bytes = JPEG) -> bytes:
    """A JPEG with bytes of its first such segment changed; offset 0 is the marker's 0xFF."""
    start = find_segment(data, {marker})[0] + offset
    return data[:start] + new + data[start + len(new) :]


def adobe(transform: int, length: int = 12) -> bytes:
    return jpeg_segment(0xEE, (b"Adobe\0\x64\0\0\0\0" + bytes([transform]))[:length])


def profile(count: int, size: int = 65_519, of: int | None = None) -> bytes:
    """A colour profile in this many segments, of a number that may be a lie."""
    head = b"ICC_PROFILE\0"
    return b"".join(
        jpeg_segment(0xE2, head + bytes([number % 256, (of or count) % 256]) + bytes(size))
        for number in range(1, count + 1)
    )


def xmp(text: bytes) -> bytes:
    return jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text)


def directory(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A TIFF directory of (tag, kind, count, value)."""
    packed = b"".join(struct.pack("<HHII", *each) for each in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", following)


BOMB = b'<!DOCTYPE x [<!ENTITY a "sesame">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + each, b"&%c;" % (97 + each) * 10) for each in range(9)
) + b"]><x>&j;</x>"  # fmt: skip

JPEGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "D32 arithmetic coding in name": (partial(patched, 0xC0, 1, b"\xc9"), "invalid_image"),
    "D32 arithmetic coding, progressive": (partial(patched, 0xC2, 1, b"\xca", PROGRESSIVE), "invalid_image"),
    "D32 hierarchical": (partial(patched, 0xC0, 1, b"\xc5"), "invalid_image"),
    "D32 progressive in name": (partial(patched, 0xC0, 1, b"\xc2"), "invalid_image"),
    "D32 baseline in name": (partial(patched, 0xC2, 1, b"\xc0", PROGRESSIVE), "invalid_image"),
    "D32 no component": (partial(patched, 0xC0, 9, b"\0"), "invalid_image"),
    "D32 255 components": (partial(patched, 0xC0, 9, b"\xff"), "invalid_image"),
    "D32 two components": (partial(patched, 0xC0, 9, b"\2"), "invalid_image"),
    "D32 components of one name": (partial(patched, 0xC0, 13, b"\1"), "invalid_image"),
    "D32 sampling 0x0": (partial(patched, 0xC0, 11, b"\0"), "invalid_image"),
    "D32 sampling 4x4": (partial(patched, 0xC0, 11, b"\x44"), "invalid_image"),
    "D32 sampling 15x15": (partial(patched, 0xC0, 11, b"\xff"), "invalid_image"),
    "D32 quantisation table 255": (partial(patched, 0xC0, 12, b"\xff"), "invalid_image"),
    "D32 no quantisation table": (partial(without, 0xDB), "invalid_image"),
    "D32 no code table": (partial(without, 0xC4), "ok"),
    "D32 a code table of too many codes": (partial(patched, 0xC4, 5, b"\xff" * 16), "invalid_image"),
    "D32 a code table that contradicts itself": (partial(patched, 0xC4, 5, b"\3"), "invalid_image"),
    "D32 a scan of no component": (partial(patched, 0xDA, 4, b"\0"), "invalid_image"),
    "D32 a scan of a foreign component": (partial(patched, 0xDA, 5, b"\x99"), "invalid_image"),
    "D32 a scan from 63 to 0": (partial(patched, 0xDA, 11, b"\x3f\0", PROGRESSIVE), "invalid_image"),
    "D32 restart after every block, none comes": (lambda: jpeg_with(jpeg_segment(0xDD, b"\0\1")), "ok"),
    "D32 990 comments": (lambda: jpeg_with(jpeg_segment(0xFE, b"sesame") * 990), "ok"),
    "D32 9 MB of comments": (lambda: jpeg_with(jpeg_segment(0xFE, b"x" * 65_000) * 140), "ok"),
    "D32 a comment of no length": (lambda: jpeg_with(b"\xff\xfe\0\0"), "invalid_image"),
    "D32 a comment longer than the file": (lambda: jpeg_with(b"\xff\xfe\xff\xff"), "invalid_image"),
    "D32 900 quantisation tables": (lambda: jpeg_with(jpeg_segment(0xDB, b"\0" + b"\1" * 64) * 900), "ok"),
    "D32 two ends": (lambda: JPEG + b"\xff\xd9" * 1000, "ok"),
    "D32 an end in front": (lambda: JPEG[:2] + b"\xff\xd9" + JPEG[2:], "invalid_image"),
    "D32 a JPEG in a JPEG": (lambda: jpeg_with(jpeg_segment(0xED, JPEG)), "ok"),
    "D32 a thumbnail of 255x255 that is not there": (partial(patched, 0xE0, 16, b"\xff\xff"), "ok"),
    "D32 JFIF cut short": (lambda: jpeg_with(jpeg_segment(0xE0, b"JFIF\0"), without(0xE0)), "ok"),
    "D32 nothing but segments": (lambda: JPEG[: joints(JPEG)[-1]], "invalid_image"),
    "D5 one pixel more than there is data for": (lambda: lying_jpeg(65, 32, JPEG), "ok"),
    "D5 progressive, claims 7000x7000": (lambda: lying_jpeg(7000, 7000, PROGRESSIVE), "ok"),
    "D16 transform 5 of Adobe": (lambda: jpeg_with(adobe(5)), "ok"),
    "D16 RGB, says Adobe": (lambda: jpeg_with(adobe(0)), "ok"),
    "D16 YCCK with three components": (lambda: jpeg_with(adobe(2)), "ok"),
    "D16 Adobe, cut short": (lambda: jpeg_with(adobe(0, 7)), "ok"),
    "D16 CMYK of transform 1": (partial(cmyk, 1), "ok"),
    "D16 CMYK and two Adobe markers": (lambda: jpeg_with(adobe(0), cmyk(2)), "ok"),
    "D26 a profile of 140 parts": (lambda: jpeg_with(profile(140)), "ok"),
    "D26 a profile whose parts are missing": (lambda: jpeg_with(profile(3, 100, of=200)), "ok"),
    "D26 a profile of part 0 of 0": (lambda: jpeg_with(jpeg_segment(0xE2, b"ICC_PROFILE\0\0\0" + bytes(200))), "ok"),
    "D20 XMP with a bomb of entities": (lambda: jpeg_with(xmp(BOMB)), "ok"),
    "D20 XMP that turns the picture": (lambda: jpeg_with(xmp(b'<x tiff:Orientation="6"/>')), "ok"),
    "D20 directories in a circle": (lambda: jpeg_with_exif(directory((0x0112, 3, 1, 6), following=8)), "ok"),
    "D20 4 GB of a maker's notes": (lambda: jpeg_with_exif(directory((0x0112, 3, 1, 6), (0x927C, 7, 2**32 - 1, 26))), "ok"),
    "D20 a directory in a directory in itself": (lambda: jpeg_with_exif(directory((0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8))), "ok"),
    "D20 Exif after the image data": (lambda: JPEG[:-2] + jpeg_segment(0xE1, b"Exif\0\0" + exif(6)) + b"\xff\xd9", "ok"),
    "D20 an orientation of 8 bytes": (lambda: jpeg_with_exif(directory((0x0112, 5, 1, 6))), "ok"),
    "D14 MPO that claims 65,535 pictures": (lambda: jpeg_with(jpeg_segment(0xE2, b"MPF\0" + directory((0xB001, 4, 1, 65_535), (0xB002, 7, 2**20, 26)))), "ok"),
    "D14 MPO whose pictures are nowhere": (lambda: jpeg_with(jpeg_segment(0xE2, b"MPF\0" + directory((0xB001, 4, 1, 2), (0xB002, 7, 32, 38)) + b"\xff" * 32)), "ok"),
    "D27 PDF around a JPEG": (lambda: b"%PDF-1.7\n" + JPEG, "unsupported_media_type"),
    "D27 TIFF in front of a JPEG": (lambda: b"II*\0\x08\0\0\0" + JPEG, "unsupported_media_type"),
    "D27 ICO that holds a PNG": (lambda: b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + struct.pack("<II", 200, 22) + png_with(), "unsupported_media_type"),
    "D27 SVG after the magic bytes": (lambda: b"\xff\xd8\xff<svg onload='sesame'/>" + bytes(60), "invalid_image"),
    "D29 PDF in a comment": (lambda: jpeg_with(jpeg_segment(0xFE, b"%PDF-1.7\n1 0 obj<</JS(sesame)>>")), "ok"),
    "D29 a script in a comment": (lambda: jpeg_with(jpeg_segment(0xFE, b"*/=alert('" + MARKER + b"')/*")), "ok"),
    "D29 a class file behind": (lambda: JPEG + b"\xca\xfe\xba\xbe" + bytes(200), "ok"),
    "D30 magic bytes and zeros": (lambda: b"\xff\xd8\xff" + bytes(5_000_000), "invalid_image"),
    **{
        f"D10 JPEG cut at joint {number}{more:+d}": (lambda place=place, more=more: JPEG[: place + more], "invalid_image")
        for number, place in enumerate(joints(JPEG))
        for more in (-1, 0, 1, 3)
    },
}  # fmt: skip


# --- PNG ------------------------------------------------------------------------------------------------------------
PIXELS = zlib.compress(b"\0" + b"\x10" * 6 + b"\0" + b"\xe0" * 6)


def png_of(*chunks: bytes, header: bytes = b"", end: bytes = chunk(b"IEND")) -> bytes:
    return PNG_MAGIC + (header or ihdr(2, 2)) + b"".join(chunks) + end


def wrong_sum(data: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    return data[:-1] + bytes([data[-1] ^ 1])


def frame_control(number: int = 0, width: int = 2, height: int = 2, left: int = 0) -> bytes:
    return chunk(b"fcTL", struct.pack(">5I2H2B", number, width, height, left, 0, 1, 1, 0, 0))


DATA = chunk(b"IDAT", PIXELS)
ANIMATED = chunk(b"acTL", struct.pack(">II", 2, 0))
PNGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "D14 APNG of 2^31 frames": (lambda: png_of(chunk(b"acTL", struct.pack(">II", 2**31, 0)), frame_control(), DATA), "ok"),
    "D14 APNG of no frame": (lambda: png_of(chunk(b"acTL", bytes(8)), DATA), "ok"),
    "D14 APNG, frame of 2^31 pixels": (lambda: png_of(ANIMATED, frame_control(0, 2**31 - 1, 2**31 - 1), DATA), "invalid_image"),
    "D14 APNG, frame beside the canvas": (lambda: png_of(ANIMATED, frame_control(left=2**31 - 1), DATA), "invalid_image"),
    "D14 APNG, frames out of order": (lambda: png_of(ANIMATED, frame_control(7), DATA, frame_control(3)), "invalid_image"),
    "D14 APNG, data of a frame in front": (lambda: png_of(ANIMATED, chunk(b"fdAT", bytes(4) + PIXELS), DATA), "invalid_image"),
    "D14 APNG, two controls of animation": (lambda: png_of(ANIMATED, ANIMATED, frame_control(), DATA), "ok"),
    "D14 APNG, 4,000 frames of nothing": (lambda: png_of(ANIMATED, DATA, *[frame_control(each) for each in range(4000)]), "ok"),
    "D23 data in 4,900 chunks": (lambda: png_of(*[chunk(b"IDAT", PIXELS[each : each + 1]) for each in range(4900)]), "ok"),
    "D23 data interrupted": (lambda: png_of(chunk(b"IDAT", PIXELS[:9]), chunk(b"tEXt", b"x\0y"), chunk(b"IDAT", PIXELS[9:])), "invalid_image"),
    "D23 data of another picture behind": (lambda: png_of(DATA, DATA), "ok"),
    "D23 wrong checksum of the header": (lambda: png_of(DATA, header=wrong_sum(ihdr(2, 2))), "invalid_image"),
    "D23 wrong checksum of the data": (lambda: png_of(wrong_sum(DATA)), "ok"),
    "D23 wrong checksum of a text": (lambda: png_of(wrong_sum(chunk(b"tEXt", b"x\0sesame")), DATA), "invalid_image"),
    "D23 wrong checksum of the end": (lambda: png_of(DATA, end=wrong_sum(chunk(b"IEND"))), "ok"),
    "D23 an end with data": (lambda: png_of(DATA, end=chunk(b"IEND", b"sesame" * 1000)), "ok"),
    "D23 9 MB behind the end": (lambda: png_of(DATA) + b"sesame" * 1_500_000, "ok"),
    "D23 an unknown critical chunk": (lambda: png_of(chunk(b"SESA", b"me"), DATA), "ok"),
    "D23 a chunk of no name": (lambda: png_of(chunk(b"\0\0\0\0", b"x"), DATA), "invalid_image"),
    "D23 a chunk of 2^31 bytes": (lambda: png_of(struct.pack(">I", 2**31) + b"tEXt", DATA), "invalid_image"),
    "D23 a filter of kind 9": (lambda: png_of(chunk(b"IDAT", zlib.compress(b"\x09" + b"\x10" * 6 + b"\0" + b"\xe0" * 6))), "invalid_image"),
    "D23 pixels too few": (lambda: png_of(chunk(b"IDAT", zlib.compress(b"\0"))), "invalid_image"),
    "D23 a window of 32 kB in a header of 256 B": (lambda: png_of(chunk(b"IDAT", b"\x08\x1d" + PIXELS[2:])), "ok"),
    "D23 data with a dictionary": (lambda: png_of(chunk(b"IDAT", b"\x78\xbb" + PIXELS[2:])), "invalid_image"),
    "D23 a palette of one byte": (lambda: png(ihdr(2, 2, 8, 3), [b"\0\0", b"\0\0"], chunk(b"PLTE", b"x")), "ok"),
    "D23 a palette of 300 colours": (lambda: png(ihdr(2, 2, 8, 3), [b"\0\0", b"\0\0"], chunk(b"PLTE", bytes(900))), "invalid_image"),
    "D23 an index beyond the palette": (lambda: png(ihdr(2, 2, 8, 3), [b"\xff\xff"] * 2, chunk(b"PLTE", bytes(3))), "ok"),
    "D23 two palettes": (lambda: png(ihdr(2, 2, 8, 3), [b"\0\0"] * 2, chunk(b"PLTE", bytes(6)) * 2), "ok"),
    "D19 transparency longer than the palette": (lambda: png(ihdr(2, 2, 8, 3), [b"\0\0"] * 2, chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", bytes(300))), "invalid_image"),
    "D19 transparency of one byte for RGB": (partial(png_with, chunk(b"tRNS", b"x")), "invalid_image"),
    "D19 transparency beside alpha": (lambda: png(ihdr(1, 1, 8, 6), [b"\1\2\3\4"], chunk(b"tRNS", bytes(6))), "ok"),
    "D24 iCCP without a name": (partial(png_with, chunk(b"iCCP", b"sesame")), "invalid_image"),
    "D24 iCCP of another method": (partial(png_with, chunk(b"iCCP", b"x\0\7" + zlib.compress(b"x"))), "invalid_image"),
    "D24 zTXt of another method": (partial(png_with, chunk(b"zTXt", b"x\0\7sesame")), "invalid_image"),
    "D24 zTXt that is no zlib": (partial(png_with, chunk(b"zTXt", b"x\0\0sesame")), "ok"),
    "D24 zTXt cut off": (partial(png_with, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(9999))[:-9])), "ok"),
    "D24 iTXt of half a header": (partial(png_with, chunk(b"iTXt", b"x\0\1")), "ok"),
    "D24 iTXt bomb": (partial(png_with, chunk(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(64 << 20), 9))), "invalid_image"),
    "D24 zTXt bomb behind the data": (partial(png_with, after=chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(64 << 20), 9))), "invalid_image"),
    "D24 64 iCCP bombs": (partial(png_with, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(64 << 20), 9)) * 64), "invalid_image"),
    "D24 a text of 9 MB": (partial(png_with, chunk(b"tEXt", b"x\0" + b"y" * 9_000_000)), "ok"),
    "D20 eXIf behind the data": (partial(png_with, after=chunk(b"eXIf", exif(6))), "ok"),
    "D20 eXIf twice": (partial(png_with, chunk(b"eXIf", exif(6)) + chunk(b"eXIf", exif(3))), "ok"),
    "D20 Exif in a text, as ImageMagick writes it": (partial(png_with, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n9999999999\n45786966"))), "ok"),
    "D17 16 bits, interlaced": (lambda: png(ihdr(1, 1, 16, 0, 1), [b"\x80\0"]), "ok"),
    "D21 no density": (partial(png_with, chunk(b"pHYs", bytes(9))), "ok"),
    "D21 gamma 0": (partial(png_with, chunk(b"gAMA", bytes(4)) + chunk(b"cHRM", bytes(32))), "ok"),
    "D21 gamma of one byte": (partial(png_with, chunk(b"gAMA", b"x") + chunk(b"cHRM", b"x") + chunk(b"pHYs", b"x")), "invalid_image"),
    **{
        f"D10 PNG cut at {place}": (lambda place=place: png_of(chunk(b"tEXt", b"x\0y"), DATA)[:place], "invalid_image")
        for place in (8, 12, 16, 24, 33, 37, 41, 48, 60, 75, 86)
    },
}  # fmt: skip


# --- WebP -----------------------------------------------------------------------------------------------------------
LOSSY = encode(picture(), "WEBP")
FRAME = webp_frame(picture())


def animated(count: int, *, size: tuple[int, int] = (48, 32), left: int = 0, inner: bytes | None = None) -> bytes:
    wide, high = ((each - 1).to_bytes(3, "little") for each in size)
    inner = inner if inner is not None else b"VP8L" + struct.pack("<I", len(FRAME)) + FRAME + b"\0" * (len(FRAME) % 2)
    content = left.to_bytes(3, "little") + bytes(3) + wide + high + b"\x0a\0\0\0" + inner
    return riff((b"VP8X", vp8x(48, 32, 2)), (b"ANIM", bytes(6)), *[(b"ANMF", content)] * count)


WEBPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "D34 9 MB of profile": (lambda: webp_of(48, 32, (b"ICCP", bytes(9_000_000)), flags=0x20), "ok"),
    "D34 9 MB of XMP": (lambda: webp_of(48, 32, (b"XMP ", BOMB + bytes(9_000_000)), flags=4), "ok"),
    "D34 flags of what is not there": (lambda: webp_of(48, 32, flags=0x3C), "ok"),
    "D34 reserved flags": (lambda: webp_of(48, 32, flags=0xC1), "invalid_image"),
    "D34 4,900 unknown chunks": (lambda: webp_of(48, 32, *[(b"SESA", b"me")] * 4900), "ok"),
    "D34 5,100 unknown chunks": (lambda: webp_of(48, 32, *[(b"SESA", b"me")] * 5100), "image_too_large"),
    "D34 two frames": (lambda: webp_of(48, 32, (b"VP8L", FRAME)), "invalid_image"),
    "D34 VP8X twice": (lambda: webp_of(48, 32, (b"VP8X", vp8x(16384, 16384))), "invalid_image"),
    "D34 alpha of nothing": (lambda: riff((b"VP8X", vp8x(48, 32, 0x10)), (b"ALPH", b""), (b"VP8 ", LOSSY[20:])), "invalid_image"),
    "D34 alpha of garbage": (lambda: riff((b"VP8X", vp8x(48, 32, 0x10)), (b"ALPH", b"\1" + b"\xff" * 99), (b"VP8 ", LOSSY[20:])), "invalid_image"),
    "D34 something behind": (lambda: LOSSY + b"sesame" * 1000, "ok"),
    "D34 a length less than the file": (lambda: LOSSY[:4] + struct.pack("<I", 30) + LOSSY[8:], "invalid_image"),
    "D34 a length of 4 GB": (lambda: LOSSY[:4] + b"\xff" * 4 + LOSSY[8:], "invalid_image"),
    "D34 a frame of length 0": (lambda: riff((b"VP8 ", b"")), "invalid_image"),
    "D34 scaled in the frame's header": (lambda: LOSSY[:27] + bytes([LOSSY[27] | 0xC0]) + LOSSY[28:], "ok"),
    "D34 a first partition longer than the frame": (lambda: LOSSY[:20] + b"\xf0\xff\xff" + LOSSY[23:], "invalid_image"),
    "D34 lossless of all ones": (lambda: riff((b"VP8L", b"\x2f\x2f\xc0\x07\0" + b"\xff" * 500)), "invalid_image"),
    "D34 lossless of random bits": (lambda: riff((b"VP8L", b"\x2f\x2f\xc0\x07\0" + bytes(range(256)) * 4)), "invalid_image"),
    "D14 animated WebP of 4,900 frames": (partial(animated, 4900), "ok"),
    "D14 animated WebP of 5,100 frames": (partial(animated, 5100), "image_too_large"),
    "D14 animated WebP, frame beside its canvas": (partial(animated, 2, left=0xFFFFFF), "invalid_image"),
    "D14 animated WebP, frame of another size than it says": (partial(animated, 2, size=(40, 30)), "ok"),
    "D14 animated WebP, frames of nothing": (partial(animated, 2, inner=b""), "invalid_image"),
    "D14 animated WebP, one frame in another": (lambda: animated(2, inner=b"ANMF" + struct.pack("<I", 16) + bytes(16)), "invalid_image"),
    **{
        f"D10 WebP cut at {place}": (lambda place=place: LOSSY[:place], "invalid_image")
        for place in (12, 15, 16, 20, 23, 26, 29, 30, 31, 60)
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("build", "code"), [*JPEGS.values(), *PNGS.values(), *WEBPS.values()], ids=[*JPEGS, *PNGS, *WEBPS]
)
def test_structure(live: Live, build: Callable[[], bytes], code: str) -> None:
    assert live.post(build(), kind=b"image/jpeg").code == code
