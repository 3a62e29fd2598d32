"""Odd, broken and hostile image files, made in code: `from hostile_images import CASES`.

Each case says what becomes of it: None when it must be classified, otherwise the `code` of the `ImageError`. Pillow and
the standard library only, so that tests of the service can use it too.
"""

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

from PIL import Image

INVALID, TOO_LARGE, UNSUPPORTED = "invalid_image", "image_too_large", "unsupported_media_type"


@dataclass(frozen=True)
class Case:
    row: str  # of the catalogue of faults
    name: str
    build: Callable[[], bytes]
    code: str | None

    def __str__(self) -> str:
        return f"{self.row} {self.name}"


# --- ordinary images ------------------------------------------------------------------------------------------------
def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Smooth, without symmetry, every corner of another colour."""
    corners = Image.new("RGB", (2, 2))
    corners.putdata([(230, 20, 40), (20, 210, 60), (30, 60, 220), (240, 230, 90)])
    return corners.resize((width, height), Image.Resampling.BILINEAR)


def encode(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


# --- PNG ------------------------------------------------------------------------------------------------------------
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png(header: bytes, rows: list[bytes], before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of unfiltered rows, with further chunks before and after the image data."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return PNG_MAGIC + header + before + chunk(b"IDAT", pixels) + after + chunk(b"IEND")


def lying_png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return png(ihdr(width, height, depth, colour), [b"\0" * 64])


def png_with(before: bytes = b"", after: bytes = b"") -> bytes:
    return png(ihdr(2, 2), [b"\x10" * 6, b"\xe0" * 6], before, after)


def iccp_flood(count: int) -> bytes:
    """Profiles of 1 MB, each just small enough for Pillow."""
    return png_with(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1_000_000))) * count)


def iccp_bomb() -> bytes:
    return png_with(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(8 << 20))))


def ztxt_bomb(count: int, size: int) -> bytes:
    return png_with(chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(size))) * count)


# --- JPEG -----------------------------------------------------------------------------------------------------------
def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def find_segment(data: bytes, markers: set[int]) -> tuple[int, int]:
    """(start of the marker, end of the content) of the first such segment before the image data."""
    position = 2
    while True:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        if data[position + 1] in markers:
            return position, end
        position = end


def lying_jpeg(width: int, height: int, jpeg: bytes | None = None) -> bytes:
    """A JPEG whose frame header claims another size."""
    jpeg = jpeg or encode(picture(), "JPEG")
    start, _ = find_segment(jpeg, {0xC0, 0xC2})
    return jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]


def jpeg_with_scans(extra: int, jpeg: bytes | None = None) -> bytes:
    """A progressive JPEG whose last scan comes `extra` times more."""
    jpeg = jpeg or encode(picture(64, 64), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * extra + jpeg[-2:]


def jpeg_with(segment: bytes, jpeg: bytes | None = None) -> bytes:
    """A JPEG with one more segment in front."""
    jpeg = jpeg or encode(picture(), "JPEG")
    return jpeg[:2] + segment + jpeg[2:]


def two_frame_headers() -> bytes:
    jpeg = encode(picture(), "JPEG")
    start, end = find_segment(jpeg, {0xC0})
    return jpeg_with(jpeg[start:end], jpeg)


def jpeg_patched(offset: int, value: int) -> bytes:
    """A JPEG with one byte of its frame header changed: 1 the marker, 4 the precision in bits."""
    jpeg = bytearray(encode(picture(), "JPEG"))
    jpeg[find_segment(bytes(jpeg), {0xC0})[0] + offset] = value
    return bytes(jpeg)


def jpeg_without_data() -> bytes:
    """Ends properly, but half of the image data is missing: a decoder fills it with grey."""
    jpeg = encode(picture(64, 64), "JPEG")
    data = find_segment(jpeg, {0xDA})[1]
    return jpeg[: (data + len(jpeg)) // 2] + b"\xff\xd9"


def cmyk(adobe_transform: int | None = 0) -> bytes:
    """A CMYK JPEG; transform 2 makes it YCCK, None leaves the Adobe marker out."""
    jpeg = encode(picture().convert("CMYK"), "JPEG", quality=95)
    start, end = find_segment(jpeg, {0xEE})
    if adobe_transform is None:
        return jpeg[:start] + jpeg[end:]
    return jpeg[: end - 1] + bytes([adobe_transform]) + jpeg[end:]


# --- EXIF -----------------------------------------------------------------------------------------------------------
def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """A TIFF directory with one entry; `kind` 3 is a 16-bit, 4 a 32-bit number."""
    value = struct.pack(order + ("I" if kind == 4 else "H"), orientation).ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + value + b"\0\0\0\0"


def jpeg_with_exif(tiff: bytes, jpeg: bytes | None = None) -> bytes:
    return jpeg_with(jpeg_segment(0xE1, b"Exif\0\0" + tiff), jpeg)


HOSTILE_EXIF = {
    "empty": b"",
    "short": b"II*\0",
    "text": b"not a directory at all",
    "orientation 0": exif(0),
    "orientation 9": exif(9),
    "orientation 10": exif(10),
    "orientation 65535": exif(65535, ">"),
    "ASCII orientation": b"II*\0" + struct.pack("<IHHHI", 8, 1, 0x0112, 2, 2) + b"6\0\0\0\0\0\0\0",
    "offset outside": b"II*\0\xff\xff\xff\xff",
    "directory in itself": b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8),
    "65535 entries": b"II*\0" + struct.pack("<IH", 8, 65535) + b"\0" * 24,
    "huge count": b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 0xFFFFFFFF, 6) + b"\0" * 4,
    "resolution 1/0": b"MM\0*"
    + struct.pack(">IHHHII", 8, 1, 0x011A, 5, 1, 26)
    + b"\0\0\0\0"
    + struct.pack(">II", 1, 0),
}


# --- WebP -----------------------------------------------------------------------------------------------------------
def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def vp8l(width: int, height: int) -> bytes:
    return struct.pack("<BI", 0x2F, (width - 1) | (height - 1) << 14) + b"\0" * 8


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    return struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def webp_frame(image: Image.Image) -> bytes:
    """The content of the single chunk of a lossless WebP."""
    return encode(image, "WEBP", lossless=True)[20:]


def webp_of(width: int, height: int, *more: tuple[bytes, bytes], flags: int = 0) -> bytes:
    """An extended WebP with this canvas, whose frame is 48x32."""
    return riff((b"VP8X", vp8x(width, height, flags)), (b"VP8L", webp_frame(picture())), *more)


# --- GIF and BMP ----------------------------------------------------------------------------------------------------
def animation(name: str, frames: int = 20, **options: Any) -> bytes:
    """First frame red, the others blue."""
    others = [Image.new("RGB", (24, 16), (0, 0, 200 + index)) for index in range(frames - 1)]
    red = Image.new("RGB", (24, 16), (255, 0, 0))
    return encode(red, name, save_all=True, append_images=others, duration=10, **options)


# --- the catalogue --------------------------------------------------------------------------------------------------
def truncated(name: str, part: float) -> bytes:
    data = encode(picture(160, 120), name)
    return data[: int(len(data) * part)]


_FOREIGN = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    "MP4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
    "TIFF": b"II*\0\x08\0\0\0" + b"\0" * 64,
    "TIFF big-endian": b"MM\0*\0\0\0\x08" + b"\0" * 64,
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
    "J2K": b"\xff\x4f\xff\x51" + b"\0" * 64,
    "PSD": b"8BPS\0\1" + b"\0" * 64,
    "FITS": b"SIMPLE  =                    T" + b" " * 50,
    "DDS": b"DDS \x7c\0\0\0" + b"\0" * 120,
    "ICO": b"\0\0\1\0\1\0\x10\x10" + b"\0" * 64,
    "TGA": b"\0\0\2" + b"\0" * 64,
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "ZIP": b"PK\3\4" + b"\0" * 64,
    "HTML": b"<!DOCTYPE html><html></html>",
    "WAV": b"RIFF\x24\0\0\0WAVEfmt ",
    "text": b"this is not an image",
    "GIF, not allowed": b"GIF89a\1\0\1\0\0\0\0;",
    "BMP, not allowed": b"BM" + b"\0" * 64,
}

# Each would cost its own decoder much, or break an old one; none of them is asked.
_FOREIGN_BOMBS = {
    "FITS of gzipped tiles": b"".join(
        line.ljust(80)
        for line in (b"SIMPLE  = T", b"ZIMAGE  = T", b"ZCMPTYPE= 'GZIP_1'", b"END")
    )
    + gzip.compress(bytes(5_000_000)),
    "PSD with a layer of negative size": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(8)
    # A layer from (9, 9) to (-9, -9).
    + struct.pack(">IIh4i", 100, 96, 1, 9, 9, -9, -9) + bytes(96),
    "J2K of 2^60 tiles": b"\xff\x4f\xff\x51"
    + struct.pack(">HH8IH", 41, 0, 2**30, 2**30, 0, 0, 1, 1, 0, 0, 1) + b"\7\1\1",
}  # fmt: skip

CASES: tuple[Case, ...] = (
    Case("D1", "PNG 50000x50000, 1 bit", partial(lying_png, 50_000, 50_000, 1, 0), TOO_LARGE),
    Case("D2", "PNG of the largest sides", partial(lying_png, 2**31 - 1, 2**31 - 1), TOO_LARGE),
    Case("D3", "PNG 13000x13000", partial(lying_png, 13_000, 13_000), TOO_LARGE),
    Case("D4", "PNG 9459x9459", partial(lying_png, 9_459, 9_459), TOO_LARGE),
    Case("D5", "JPEG claims 65500x2700", partial(lying_jpeg, 65_500, 2_700), TOO_LARGE),
    Case("D5", "JPEG claims 13000x13000", partial(lying_jpeg, 13_000, 13_000), TOO_LARGE),
    Case("D6", "WebP claims 9000x9000", lambda: riff((b"VP8L", vp8l(9_000, 9_000))), TOO_LARGE),
    Case("D8", "JPEG with 100 more scans", partial(jpeg_with_scans, 100), TOO_LARGE),
    Case("D8", "JPEG with 500 more scans", partial(jpeg_with_scans, 500), TOO_LARGE),
    *(
        Case("D10", f"{name} cut to {part:.0%}", partial(truncated, name, part), INVALID)
        for name in ("JPEG", "PNG", "WEBP")
        for part in (0, 0.01, 0.5, 0.99)
    ),
    Case("D11", "JPEG with half of its data and an end", jpeg_without_data, None),
    Case(
        "D14", "MPO of two pictures", lambda: encode(picture(), "MPO", save_all=True, append_images=[picture()]), None
    ),
    Case("D14", "animated WebP", partial(animation, "WEBP"), None),
    Case("D14", "animated PNG", partial(animation, "PNG"), None),
    Case("D16", "JPEG in CMYK, Adobe", partial(cmyk, 0), None),
    Case("D16", "JPEG in CMYK, no marker", partial(cmyk, None), None),
    Case("D16", "JPEG in YCCK", partial(cmyk, 2), None),
    Case("D17", "PNG, 16-bit grey", lambda: png(ihdr(2, 1, 16, 0), [b"\x80\0\xff\xff"]), None),
    Case("D19", "PNG, grey and alpha", lambda: encode(picture().convert("LA"), "PNG"), None),
    Case("D19", "PNG, 1 bit", lambda: encode(picture().convert("1"), "PNG"), None),
    Case(
        "D19",
        "PNG, palette and alpha",
        lambda: encode(picture().quantize(8), "PNG", transparency=bytes(range(8))),
        None,
    ),
    *(Case("D20", f"EXIF: {name}", partial(jpeg_with_exif, tiff), None) for name, tiff in HOSTILE_EXIF.items()),
    Case("D21", "1x1", lambda: encode(picture(1, 1), "PNG"), None),
    Case("D21", "2x2", lambda: encode(picture(2, 2), "JPEG"), None),
    Case("D22", "1x10000", lambda: encode(picture(1, 10_000), "PNG"), TOO_LARGE),
    Case("D22", "10000x1", lambda: encode(picture(10_000, 1), "JPEG"), TOO_LARGE),
    Case("D22", "30000x2", lambda: encode(picture(30_000, 2), "PNG"), TOO_LARGE),
    Case("D23", "PNG of no width", partial(lying_png, 0, 5), INVALID),
    Case("D23", "PNG of no height", partial(lying_png, 5, 0), INVALID),
    Case("D32", "JPEG whose height comes later (DNL)", partial(lying_jpeg, 48, 0), INVALID),
    Case("D23", "PNG of colour type 5", partial(lying_png, 2, 2, 8, 5), INVALID),
    Case("D23", "PNG of bit depth 3", partial(lying_png, 2, 2, 3, 0), INVALID),
    Case("D23", "PNG, palette missing", partial(lying_png, 2, 2, 8, 3), INVALID),
    Case("D23", "PNG interlaced 1x1", lambda: png(ihdr(1, 1, 8, 2, 1), [b"\1\2\3"]), None),
    Case("D24", "PNG with an iCCP bomb", iccp_bomb, INVALID),
    Case("D24", "PNG with a zTXt bomb", partial(ztxt_bomb, 1, 8 << 20), INVALID),
    Case("D24", "PNG with 70 zTXt of 1 MB", partial(ztxt_bomb, 70, 1_000_000), TOO_LARGE),
    Case("D24", "PNG with 4000 profiles of 1 MB", partial(iccp_flood, 4_000), TOO_LARGE),
    Case("D24", "PNG with 6000 chunks", lambda: png_with(chunk(b"tEXt", b"x\0y") * 6_000), TOO_LARGE),
    Case("D23", "PNG with two headers", lambda: png_with(ihdr(2, 2)), INVALID),
    Case("D23", "PNG without data", lambda: PNG_MAGIC + ihdr(2, 2) + chunk(b"IEND"), INVALID),
    Case(
        "D10",
        "PNG with wrong pixels",
        lambda: PNG_MAGIC + ihdr(2, 2) + chunk(b"IDAT", b"zzzz") + chunk(b"IEND"),
        INVALID,
    ),
    Case("D26", "corrupt ICC profile", lambda: encode(picture(), "JPEG", icc_profile=b"\xff" * 200), None),
    Case("D29", "polyglot JPEG and ZIP", lambda: encode(picture(), "JPEG") + b"PK\3\4<script>", None),
    Case("D29", "PNG with PHP in a chunk", lambda: png_with(chunk(b"tEXt", b"c\0<?php system($_GET[0]); ?>")), None),
    Case("D30", "1 byte", lambda: b"\xff", INVALID),
    Case("D30", "JPEG magic alone", lambda: b"\xff\xd8\xff", INVALID),
    Case("D30", "GIF magic alone", lambda: b"GIF89a", INVALID),
    Case("D30", "PNG magic alone", lambda: PNG_MAGIC, INVALID),
    Case("D32", "JPEG of 12 bits", partial(jpeg_patched, 4, 12), INVALID),
    Case("D32", "JPEG, lossless in name", partial(jpeg_patched, 1, 0xC3), INVALID),
    Case("D32", "JPEG with two frame headers", two_frame_headers, INVALID),
    Case("D32", "JPEG with arithmetic coding", partial(jpeg_patched, 1, 0xC9), INVALID),
    Case("D32", "JPEG with 1100 segments", lambda: jpeg_with(jpeg_segment(0xFE, b"x") * 1_100), TOO_LARGE),
    Case("D30", "JPEG of markers only", lambda: b"\xff\xd8\xff\xd9" + b"\xff" * 20, INVALID),
    Case("D34", "WebP canvas unlike its frame", partial(webp_of, 50, 40), INVALID),
    Case("D34", "WebP canvas over the limit", partial(webp_of, 20_000, 20_000), TOO_LARGE),
    Case("D34", "WebP with 1 MB of EXIF", lambda: webp_of(48, 32, (b"EXIF", b"II*\0" * (1 << 18)), flags=8), None),
    Case("D34", "WebP without a frame", lambda: riff((b"VP8X", vp8x(48, 32))), INVALID),
    *(Case("D27", f"foreign: {name}", partial(bytes, data), UNSUPPORTED) for name, data in _FOREIGN.items()),
    *(Case("D28", name, partial(bytes, data), UNSUPPORTED) for name, data in _FOREIGN_BOMBS.items()),
)
