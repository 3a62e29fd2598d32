"""Image headers: format, size and orientation read from the bytes, before any decoder sees them.

A 50-byte file can claim gigabytes of pixels, and a decoder allocates what the header claims. So the header is read
here, in pure Python, and refused over the limits; the cost of an image in patches follows from it too. Every walk is
bounded in steps. Standard library only.

    ImageError (ValueError)
    ├── InvalidImage        empty, truncated, contradictory or undecodable
    ├── ImageTooLarge       pixels, side, aspect ratio, scans or chunks over a limit
    └── UnsupportedFormat   the signature is not that of an allowed format
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

_MAX_SEGMENTS = 1_000  # of a JPEG: the longest ICC profile takes 255, a scan at most a few; 1.3 us each
_MAX_BLOCKS = 5_000  # of a GIF in front of its first frame, of a WebP: a frame of an animation is one
_MAX_JUNK = 1 << 16  # bytes between the segments of a JPEG in all; Pillow skips them one by one, 0.7 us each
_MAX_EXIF_SEGMENTS = 64  # of a JPEG; Pillow joins them anew for each one more
_MAX_EXIF_ENTRIES = 1_000  # of the first directory; cameras write fewer than 50
_LEAST_GIF_BLOCKS = {0xFE: 0, 0xFF: 2}  # of a comment, of an application: its name and something from it
_MAX_PNG_COMPRESSED = 64  # profiles and texts, which decoders inflate to 1 MB each, 2 ms, before they are ignored


class ImageError(ValueError):
    """An image that is refused. The message is for whoever owns the image; `code` is stable and safe to publish."""

    code: ClassVar[str]


class InvalidImage(ImageError):  # noqa: N818 - named after what is wrong, as in its code
    """Empty, truncated, contradictory or undecodable."""

    code = "invalid_image"


class ImageTooLarge(ImageError):  # noqa: N818
    """Pixels, side, aspect ratio, scans or chunks over a limit."""

    code = "image_too_large"


class UnsupportedFormat(ImageError):  # noqa: N818
    """The signature is not that of an allowed format."""

    code = "unsupported_media_type"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may claim before it is decoded."""

    max_pixels: int = 50_000_000  # width x height: 200 MB decoded, as much again while colours are converted
    max_side: int = 30_000  # pixels
    max_aspect: float = 100.0  # longer side / shorter side
    max_scans: int = 100  # of a JPEG; encoders write about 10, each is a pass over all coefficients
    max_scan_pixels: int = 1_000_000_000  # width x height x scans of a JPEG: about 0.8 s of decoding
    max_png_chunks: int = 5_000  # of a PNG
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")  # allowed; GIF and BMP can be added


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header says: size in pixels as stored, and how the image is turned to stand upright.

    Attributes:
        format: `JPEG`, `PNG`, `WEBP`, `GIF` or `BMP`, as Pillow names them.
        width, height: pixels, as stored.
        orientation: EXIF orientation 1..8; 1 if there is none or it cannot be read.
        buffered: a JPEG of several scans: a decoder keeps all of it at full size, whatever the size it is decoded to.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    buffered: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) after the EXIF turn: orientations 5 to 8 swap the sides."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(data: bytes | bytearray, limits: ImageLimits) -> ImageHeader:
    """Read and check an image's header.

    Raises:
        InvalidImage: if it is empty, truncated or contradicts itself.
        ImageTooLarge: if it claims more than `limits` allow.
        UnsupportedFormat: if it is no allowed format.
    """
    if len(data) < 12:
        raise InvalidImage(f"{len(data)} bytes are not an image: the file is empty or cut off, send it whole")
    name = _sniff(data)
    if name not in limits.formats:
        allowed = ", ".join(limits.formats)
        raise UnsupportedFormat(f"{name or 'this kind of file'} is not accepted: convert the image to one of {allowed}")
    try:
        header = _READERS[name](data, limits)
    except (struct.error, IndexError):
        raise InvalidImage(f"the {name} header is cut off: send the whole file") from None
    _check_size(header, limits)
    return header


def _sniff(data: bytes | bytearray) -> str:
    """The format that the first bytes announce; empty if it is none of ours."""
    if data[:4] == b"RIFF":
        return "WEBP" if data[8:12] == b"WEBP" else ""
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), "")


def _check_size(header: ImageHeader, limits: ImageLimits) -> None:
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise InvalidImage(f"the {header.format} header says {width}x{height} pixels: there is no image in it")
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{width}x{height} pixels: the limit is {limits.max_side} a side, make the image smaller")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"{width}x{height} is {width * height} pixels: the limit is {limits.max_pixels}, make the image smaller"
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise ImageTooLarge(
            f"{width}x{height} pixels: the longer side may be at most {limits.max_aspect:g} times the shorter, "
            "crop the image"
        )


# --- JPEG: ITU-T T.81, annex B ---------------------------------------------------------------------------------------
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a stuffed zero, a fill byte or a restart marker
_TEM, _SOI, _EOI, _SOS, _APP1 = 0x01, 0xD8, 0xD9, 0xDA, 0xE1
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # without DHT, JPG and DAC, which share the range
_SEQUENTIAL = {0xC0, 0xC1}  # baseline and extended
# A pass over all coefficients takes as long as it has decisions, about two a pixel, and next to no bytes: 7 kB buy five
# times what a scan of Huffman codes can cost. No browser reads such files.
_ARITHMETIC = frozenset({0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})


def _jpeg_segments(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of every segment's content, up to the end of the image. Scan data is stepped over."""
    position, junk, in_scan = 2, _MAX_JUNK, False
    for _ in range(_MAX_SEGMENTS):
        horizon = len(data) if in_scan else min(len(data), position + junk)
        found = _MARKER.search(data, position, horizon)
        if found is None and horizon < len(data):
            raise InvalidImage("the JPEG has bytes of no meaning between its segments: save it again")
        if found is None or data[found.end() - 1] == _EOI:
            return
        junk -= 0 if in_scan else found.start() - position
        marker, start = data[found.end() - 1], found.end()
        if marker == _TEM:
            position = start
            continue
        end = start + int.from_bytes(data[start : start + 2])
        if marker == _SOI or end < start + 2 or end > len(data):
            raise InvalidImage("a JPEG segment is cut off or broken: send the whole file")
        yield marker, start + 2, end
        position, in_scan = end, marker == _SOS
    raise ImageTooLarge(f"more than {_MAX_SEGMENTS} JPEG segments: save the image again with a usual encoder")


def _read_jpeg(data: bytes | bytearray, limits: ImageLimits) -> ImageHeader:
    frame: tuple[int, int, int, int] | None = None  # marker, height, width, components
    orientation = exifs = 0
    for marker, start, end in _jpeg_segments(data):
        if marker == _APP1 and data[start : start + 6] == b"Exif\0\0":
            orientation = orientation or _orientation(data[start:end])
            exifs += 1
            if exifs > _MAX_EXIF_SEGMENTS:
                raise ImageTooLarge(f"more than {_MAX_EXIF_SEGMENTS} Exif segments: save the image without them")
        elif marker in _SOF:
            if frame:
                raise InvalidImage("the JPEG has two frame headers: save it again")
            if marker in _ARITHMETIC:
                raise InvalidImage(
                    "a JPEG with arithmetic coding takes too long to decode: save it with Huffman coding"
                )
            frame = (marker, *struct.unpack_from(">xHHB", data[start:end]))
        elif marker == _SOS:
            if not frame:
                raise InvalidImage("the JPEG has image data before its frame header: save it again")
            process, height, width, components = frame
            header = ImageHeader("JPEG", width, height, orientation or 1)
            _check_size(header, limits)
            # libjpeg takes no second scan when the first one of a sequential image holds every component.
            if process not in _SEQUENTIAL or data[start] != components:
                _check_scans(data, header, limits)
                return replace(header, buffered=True)
            return header
    raise InvalidImage("the JPEG ends before its image data: send the whole file")


def _check_scans(data: bytes | bytearray, header: ImageHeader, limits: ImageLimits) -> None:
    """Refuse a JPEG whose many scans, each a pass over the whole image, would take seconds to decode."""
    pixels = header.width * header.height
    allowed = min(limits.max_scans, limits.max_scan_pixels // pixels)
    # Scan data never holds FFDA, embedded thumbnails may: the plain count is a bound from above, and takes no walk.
    if data.count(b"\xff\xda") <= allowed:
        return
    scans = sum(marker == _SOS for marker, _, _ in _jpeg_segments(data))
    if scans > allowed:
        raise ImageTooLarge(
            f"the JPEG has {scans} scans of {pixels} pixels: at most {allowed} are accepted at this size, "
            "save it as a baseline JPEG"
        )


# --- PNG: W3C PNG third edition ---------------------------------------------------------------------------------------
_PNG_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}  # by colour type
_PNG_COMPRESSED = {b"iCCP", b"zTXt", b"iTXt"}


def _read_png(data: bytes | bytearray, limits: ImageLimits) -> ImageHeader:
    length, kind, width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(
        ">I4sIIBBBBB", data, 8
    )
    if (length, kind) != (13, b"IHDR"):
        raise InvalidImage("the PNG does not begin with its header: send the whole file")
    if depth not in _PNG_DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise InvalidImage(f"PNG colour type {colour} with bit depth {depth} does not exist: save the image again")
    header = ImageHeader("PNG", width, height)
    _check_size(header, limits)  # before the walk: what is refused for its size is refused at once
    return replace(header, orientation=_walk_png(data, limits))


def _walk_png(data: bytes | bytearray, limits: ImageLimits) -> int:
    """Step over the chunks after IHDR and return the orientation: whole, in bounds, one header, some data, an end."""
    position, orientation, has_data, compressed = 33, 0, False, 0
    for _ in range(limits.max_png_chunks):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += length + 12
        if position > len(data) or kind == b"IHDR":
            raise InvalidImage("a PNG chunk is cut off or repeated: send the whole file")
        if kind == b"eXIf" and not orientation:
            orientation = _orientation(data[position - length - 4 : position - 4])
        has_data |= kind == b"IDAT"
        compressed += kind in _PNG_COMPRESSED
        if compressed > _MAX_PNG_COMPRESSED:
            raise ImageTooLarge(
                f"more than {_MAX_PNG_COMPRESSED} compressed PNG profiles and texts: save the image without them"
            )
        if kind == b"IEND":
            if not has_data:
                raise InvalidImage("the PNG holds no image data: send the whole file")
            return orientation or 1
    raise ImageTooLarge(f"more than {limits.max_png_chunks} PNG chunks: save the image again with a usual encoder")


# --- WebP: RFC 9649 ---------------------------------------------------------------------------------------------------
def _read_webp(data: bytes | bytearray, limits: ImageLimits) -> ImageHeader:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    if riff_size + 8 > len(data):
        raise InvalidImage("the WebP is cut off: send the whole file")
    kind = bytes(data[12:16])
    if kind != b"VP8X":
        return ImageHeader("WEBP", *_webp_frame(data, 12))
    flags, wide, high = data[20], _u24(data, 24), _u24(data, 27)
    canvas = ImageHeader("WEBP", wide + 1, high + 1)
    _check_size(canvas, limits)
    return _walk_webp(data, 8 + riff_size, canvas, animated=bool(flags & 2))


def _webp_chunks(data: bytes | bytearray, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, length) of the content of every chunk after VP8X."""
    position = 30
    for _ in range(_MAX_BLOCKS):
        if position + 8 > end:
            return
        kind, length = struct.unpack_from("<4sI", data, position)
        if position + 8 + length > end:
            raise InvalidImage("a WebP chunk is cut off: send the whole file")
        yield kind, position + 8, length
        position += 8 + length + length % 2
    raise ImageTooLarge(f"more than {_MAX_BLOCKS} WebP chunks: save the image again with a usual encoder")


def _walk_webp(data: bytes | bytearray, end: int, canvas: ImageHeader, *, animated: bool) -> ImageHeader:
    """The frames must agree with the canvas, and the first EXIF may turn the image."""
    orientation, has_frame = 0, False
    for kind, start, length in _webp_chunks(data, end):
        if kind == b"EXIF" and not orientation:
            orientation = _orientation(data[start : start + length])
        elif kind == b"ANMF" and animated:
            has_frame = True
            if _u24(data, start + 6) >= canvas.width or _u24(data, start + 9) >= canvas.height:
                raise InvalidImage("a WebP frame is larger than its canvas: save the image again")
        elif kind in {b"VP8 ", b"VP8L"} and not animated:
            has_frame = True
            if _webp_frame(data, start - 8) != (canvas.width, canvas.height):
                raise InvalidImage("the WebP frame is not as large as its canvas: save the image again")
    if not has_frame:
        raise InvalidImage("the WebP holds no image: send the whole file")
    return replace(canvas, orientation=orientation or 1)


def _webp_frame(data: bytes | bytearray, position: int) -> tuple[int, int]:
    """(width, height) of the lossy (RFC 6386, 9.1) or lossless (RFC 9649, 3.4) bitstream in the chunk here."""
    kind = bytes(data[position : position + 4])
    if kind == b"VP8 ":
        tag, start, width, height = struct.unpack_from("<B2x3sHH", data, position + 8)
        if tag & 1 or start != b"\x9d\x01\x2a":
            raise InvalidImage("the WebP does not begin with a key frame: save the image again")
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        magic, bits = struct.unpack_from("<BI", data, position + 8)
        if magic != 0x2F or bits >> 29:
            raise InvalidImage("the WebP's lossless header is broken: save the image again")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise InvalidImage("the WebP holds no image: send the whole file")


def _u24(data: bytes | bytearray, position: int) -> int:
    low, high = struct.unpack_from("<HB", data, position)
    return int(low | high << 16)


# --- GIF (CompuServe 89a) and BMP -------------------------------------------------------------------------------------
def _read_gif(data: bytes | bytearray, limits: ImageLimits) -> ImageHeader:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    _find_gif_frame(data, 13 + (6 << (flags & 7) if flags & 0x80 else 0))
    return ImageHeader("GIF", width, height)


def _find_gif_frame(data: bytes | bytearray, position: int) -> None:
    """Pass what stands in front of the first frame; Pillow skips extensions block by block, and stray bytes one by one.

    Raises:
        InvalidImage: if there is no frame, or an extension behind whose end Pillow would read on.
        ImageTooLarge: for more blocks and stray bytes than `_MAX_BLOCKS`.
    """
    least = None  # blocks, of the extension that is being read
    for _ in range(_MAX_BLOCKS):
        first = data[position]
        if least is not None:
            if first == 0 and least > 0:
                raise InvalidImage("an extension of the GIF is empty: save the image again")
            position, least = position + 1 + first, least - 1 if first else None
        elif first == 0x2C:
            return
        elif first == 0x3B:
            raise InvalidImage("the GIF holds no image: send the whole file")
        elif first == 0x21:
            position, least = position + 2, _LEAST_GIF_BLOCKS.get(data[position + 1], 1)
        else:
            position += 1
    raise ImageTooLarge(f"more than {_MAX_BLOCKS} blocks in front of the GIF's image: save it again without them")


def _read_bmp(data: bytes | bytearray, limits: ImageLimits) -> ImageHeader:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        return ImageHeader("BMP", *struct.unpack_from("<HH", data, 18))
    width, height, compression = struct.unpack_from("<iixxxxI", data, 18)
    if compression in {1, 2}:
        raise InvalidImage("a BMP of run lengths takes too long to decode: save it as a PNG")
    return ImageHeader("BMP", width, abs(height))  # a negative height stores the rows from the top


# --- EXIF orientation: CIPA DC-008, 4.6 -------------------------------------------------------------------------------
def _orientation(exif: bytes | bytearray) -> int:
    """Tag 0x0112 of the first directory; 1 for whatever cannot be read, since the image itself may be fine."""
    tiff = exif[6:] if exif[:6] == b"Exif\0\0" else exif
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for index in range(min(entries, _MAX_EXIF_ENTRIES)):
            entry = directory + 2 + 12 * index
            tag, kind, count = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)
                return value if kind in {3, 4} and count == 1 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
}
_READERS: dict[str, Callable[[bytes | bytearray, ImageLimits], ImageHeader]] = {
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "WEBP": _read_webp,
    "GIF": _read_gif,
    "BMP": _read_bmp,
}
