import struct
from io import BytesIO

import pytest
from hostile_images import (
    CASES,
    HOSTILE_EXIF,
    PNG_MAGIC,
    UNSUPPORTED,
    Case,
    animation,
    chunk,
    cmyk,
    encode,
    exif,
    find_segment,
    ihdr,
    jpeg_patched,
    jpeg_segment,
    jpeg_with,
    jpeg_with_exif,
    jpeg_with_scans,
    lying_jpeg,
    lying_png,
    picture,
    png,
    png_with,
    riff,
    vp8x,
    webp_of,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.headers import (
    ImageError,
    ImageHeader,
    ImageLimits,
    ImageTooLarge,
    InvalidImage,
    UnsupportedFormat,
    read_header,
)

ALL = ImageLimits(formats=("JPEG", "PNG", "WEBP", "GIF", "BMP"))
FILES = {
    "JPEG": encode(picture(37, 53), "JPEG"),
    "JPEG progressive": encode(picture(37, 53), "JPEG", progressive=True),
    "PNG": encode(picture(37, 53), "PNG"),
    "WEBP lossy": encode(picture(37, 53), "WEBP"),
    "WEBP lossless": encode(picture(37, 53), "WEBP", lossless=True),
    "WEBP extended": encode(picture(37, 53), "WEBP", exif=exif(3)),
    "GIF": encode(picture(37, 53), "GIF"),
    "BMP": encode(picture(37, 53), "BMP"),
}


def code_of(data: bytes, limits: ImageLimits = ImageLimits()) -> str | None:  # noqa: B008 - frozen
    try:
        read_header(data, limits)
    except ImageError as error:
        return error.code
    return None


@pytest.mark.parametrize("name", FILES)
def test_size_and_format_are_what_the_decoder_finds(name: str) -> None:
    header = read_header(FILES[name], ALL)
    with Image.open(BytesIO(FILES[name])) as image:
        assert (header.format, (header.width, header.height)) == (image.format, image.size)
    assert read_header(bytearray(FILES[name]), ALL) == header


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_header_refuses_is_refused_for_the_stated_reason(case: Case) -> None:
    """Some cases only a decoder can refuse, but none is refused here that may pass or for another reason."""
    assert code_of(case.build()) in {case.code, None}


def test_the_parser_is_never_entered_for_a_format_that_is_not_allowed() -> None:
    broken = b"GIF89a" + b"\xff" * 3 + b"\0" * 3
    assert code_of(broken) == UNSUPPORTED
    assert code_of(encode(picture(), "PNG"), ImageLimits(formats=("JPEG",))) == UNSUPPORTED
    with pytest.raises(UnsupportedFormat, match="JPEG, PNG, WEBP"):
        read_header(broken, ImageLimits())


# --- limits ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("limits", "fits", "over"),
    [
        (ImageLimits(max_pixels=100), (10, 10), (10, 11)),
        (ImageLimits(max_side=20), (20, 20), (21, 1)),
        (ImageLimits(max_aspect=4), (20, 5), (21, 5)),
        (ImageLimits(max_aspect=4), (5, 20), (5, 21)),
    ],
    ids=["pixels", "side", "wide", "tall"],
)
def test_a_limit_admits_its_own_value_and_nothing_over_it(
    limits: ImageLimits, fits: tuple[int, int], over: tuple[int, int]
) -> None:
    for build in (lying_png, lying_jpeg):
        assert code_of(build(*fits), limits) is None
        with pytest.raises(ImageTooLarge, match=f"{over[0]}x{over[1]}"):
            read_header(build(*over), limits)


def test_a_baseline_jpeg_at_the_pixel_limit_passes_with_one_scan_per_component() -> None:
    assert code_of(lying_jpeg(10_000, 5_000)) is None
    assert code_of(lying_jpeg(10_000, 5_000, three_scans())) is None


def three_scans() -> bytes:
    """A baseline JPEG with a scan for every component, as `cjpeg -scans` writes it; the data need not decode."""
    jpeg = encode(picture(), "JPEG")
    start, _ = find_segment(jpeg, {0xDA})
    scans = b"".join(jpeg_segment(0xDA, bytes([1, component, 0, 0, 63, 0])) + b"\x55" * 9 for component in (1, 2, 3))
    return jpeg[:start] + scans + b"\xff\xd9"


def test_scans_are_limited_alone_and_together_with_pixels() -> None:
    jpeg = encode(picture(64, 64), "JPEG", progressive=True)
    own = jpeg.count(b"\xff\xda")
    assert code_of(jpeg_with_scans(100 - own)) is None
    assert code_of(jpeg_with_scans(101 - own)) == ImageTooLarge.code
    assert code_of(lying_jpeg(7_000, 7_000, jpeg)) is None
    assert code_of(lying_jpeg(7_000, 7_000, jpeg_with_scans(20))) == ImageTooLarge.code
    assert code_of(jpeg, ImageLimits(max_scan_pixels=own * 64 * 64)) is None
    assert code_of(jpeg, ImageLimits(max_scan_pixels=own * 64 * 64 - 1)) == ImageTooLarge.code


def test_start_of_scan_bytes_inside_metadata_are_not_scans() -> None:
    progressive = encode(picture(), "JPEG", progressive=True)
    assert code_of(jpeg_with(jpeg_segment(0xE2, b"\xff\xda" * 5_000), progressive)) is None


def test_extra_scans_of_a_baseline_jpeg_are_counted_where_the_decoder_would_take_them() -> None:
    jpeg = three_scans()
    start = jpeg.rindex(b"\xff\xda")
    assert code_of(jpeg[:-2] + jpeg[start:-2] * 200 + jpeg[-2:]) == ImageTooLarge.code


def test_scans_hidden_behind_restart_markers_and_fill_bytes_are_counted() -> None:
    jpeg = encode(picture(64, 64), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    hidden = (jpeg[last:-2] + b"\xff\xd0\xff\0\xff\xff") * 120
    assert code_of(jpeg[:-2] + hidden + jpeg[-2:]) == ImageTooLarge.code


@pytest.mark.parametrize("frame", range(0xC0, 0xD0))
def test_a_jpeg_with_arithmetic_coding_is_refused(frame: int) -> None:
    """Of the sixteen markers of a frame header those with bit 3, but for JPG (C8) and DAC (CC), which are none."""
    arithmetic = frame in {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
    try:
        read_header(jpeg_patched(1, frame), ImageLimits())
        refused = ""
    except InvalidImage as error:
        refused = str(error)
    assert ("arithmetic coding" in refused) == arithmetic


def test_jpeg_segments_are_limited() -> None:
    """Each is a step of the event loop, and a file may consist of nothing else."""
    segment = jpeg_segment(0xFE, b"x")
    assert code_of(jpeg_with(segment * 900)) is None
    assert code_of(jpeg_with(segment * 1_000)) == ImageTooLarge.code


def test_png_chunks_are_limited() -> None:
    text = chunk(b"tEXt", b"x\0y")
    limits = ImageLimits(max_png_chunks=10)
    assert code_of(png_with(text * 8), limits) is None  # with IDAT and IEND, ten after the header
    assert code_of(png_with(text * 9), limits) == ImageTooLarge.code
    assert code_of(png_with(after=text * 9), limits) == ImageTooLarge.code


def test_bytes_that_pillow_skips_one_by_one_are_limited() -> None:
    """9 MB of them would take six seconds."""
    segment = jpeg_segment(0xFE, b"x")
    assert code_of(jpeg_with(b"\xff" * 60_000)) is None
    assert code_of(jpeg_with(b"\xff" * 70_000)) == InvalidImage.code
    assert code_of(jpeg_with((b"\xff" * 40_000 + segment) * 2)) == InvalidImage.code


def test_no_scan_hides_behind_junk() -> None:
    jpeg = encode(picture(64, 64), "JPEG", progressive=True)
    hiding = jpeg[:-2] + jpeg_segment(0xFE, b"x") + b"\0" * 2_000_000
    assert code_of(jpeg_with_scans(200, hiding + jpeg[jpeg.rindex(b"\xff\xda") :])) == InvalidImage.code


def test_exif_segments_are_limited() -> None:
    """Pillow joins them with a copy of all so far: 4,900 of 2 kB would take 1.5 seconds."""
    segment = jpeg_segment(0xE1, b"Exif\0\0" + exif(6))
    assert read_header(jpeg_with(segment * 64), ImageLimits()).orientation == 6
    assert code_of(jpeg_with(segment * 65)) == ImageTooLarge.code


def test_a_bmp_of_run_lengths_is_refused() -> None:
    """Pillow decodes it in Python: 10 MB take 2.6 seconds."""
    bmp = encode(picture(5, 7).quantize(8), "BMP")
    assert code_of(bmp, ALL) is None
    for compression in (1, 2):
        assert code_of(bmp[:30] + struct.pack("<I", compression) + bmp[34:], ALL) == InvalidImage.code


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_png_chunks_that_a_decoder_inflates_are_limited(kind: bytes) -> None:
    """5,000 of them, 1 kB each, would take ten seconds."""
    assert code_of(png_with(chunk(kind) * 64)) is None
    assert code_of(png_with(chunk(kind) * 65)) == ImageTooLarge.code
    assert code_of(png_with(after=chunk(kind) * 65)) == ImageTooLarge.code


def test_webp_chunks_are_limited() -> None:
    assert code_of(webp_of(48, 32, *[(b"junk", b"")] * 6_000)) == ImageTooLarge.code


# --- contradictions -------------------------------------------------------------------------------------------------
def test_every_truncation_of_a_png_or_webp_is_found_without_decoding() -> None:
    for name in ("PNG", "WEBP lossy", "WEBP lossless", "WEBP extended"):
        data = FILES[name]
        assert {code_of(data[:end]) for end in range(len(data))} == {InvalidImage.code}


def test_every_truncation_of_a_jpeg_before_its_data_is_found_without_decoding() -> None:
    jpeg = FILES["JPEG"]
    assert {code_of(jpeg[:end]) for end in range(find_segment(jpeg, {0xDA})[1])} == {InvalidImage.code}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xd8" + jpeg_segment(0xDA, b"\1\1\0\0\x3f\0") + b"\xff\xd9" * 9, "before its frame header"),
        (b"\xff\xd8\xff\xd8\xff\xd8" + b"\0" * 20, "segment"),
        (b"\xff\xd8\xff\xc0\0\1" + b"\0" * 20, "segment"),
        (b"\xff\xd8" + jpeg_segment(0xC0, b"\x08") + jpeg_segment(0xDA, b"") + b"\0" * 3, "no image|cut off"),
        (PNG_MAGIC + chunk(b"tEXt", b"x\0" + b"y" * 30), "begin with its header"),
        (png(chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 1, 0, 0)), []), "does not exist"),
        (png(chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 2)), []), "does not exist"),
        (riff((b"VP8 ", b"\x01\0\0\x9d\x01\x2a\x10\0\x10\0")), "key frame"),
        (riff((b"VP8 ", b"\0\0\0\x9d\x01\x2a\0\0\x10\0")), "0x16"),
        (riff((b"VP8L", b"\x2e" + b"\0" * 8)), "lossless"),
        (riff((b"XXXX", b"\0" * 30)), "no image"),
        (riff((b"VP8X", vp8x(48, 32)), (b"EXIF", exif(1))), "no image"),
        (
            riff((b"VP8X", vp8x(8, 8, 2)), (b"ANMF", b"\0" * 6 + b"\x08\0\0\x07\0\0" + b"\0" * 4)),
            "larger than its canvas",
        ),
    ],
)
def test_contradictions_are_named(data: bytes, says: str) -> None:
    with pytest.raises(InvalidImage, match=says):
        read_header(data, ImageLimits())


def test_a_bmp_may_store_its_rows_from_the_top_or_have_the_oldest_header() -> None:
    bmp = encode(picture(5, 7), "BMP")
    assert read_header(bmp[:22] + struct.pack("<i", -7) + bmp[26:], ALL) == ImageHeader("BMP", 5, 7)
    oldest = b"BM" + b"\0" * 12 + struct.pack("<IHHHH", 12, 5, 7, 1, 24) + b"\0" * 9
    assert read_header(oldest, ALL) == ImageHeader("BMP", 5, 7)
    assert code_of(bmp[:18] + struct.pack("<i", -5) + bmp[22:], ALL) == InvalidImage.code


@given(data=st.binary(max_size=200), name=st.sampled_from(sorted(FILES)), keep=st.integers(0, 60))
def test_no_bytes_raise_anything_but_an_image_error(data: bytes, name: str, keep: int) -> None:
    code_of(FILES[name][:keep] + data, ALL)


@given(name=st.sampled_from(sorted(FILES)), place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_no_changed_byte_raises_anything_but_an_image_error(name: str, place: float, value: int) -> None:
    data = bytearray(FILES[name])
    data[int(place * len(data))] = value
    code_of(bytes(data), ALL)


# --- orientation ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4], ids=["short", "long"])
def test_orientation_is_read_from_every_format(orientation: int, order: str, kind: int) -> None:
    tiff = exif(orientation, order, kind)
    files = [
        jpeg_with_exif(tiff),
        png_with(chunk(b"eXIf", tiff)),
        png_with(after=chunk(b"eXIf", tiff)),
        webp_of(48, 32, (b"EXIF", tiff), flags=8),
        webp_of(48, 32, (b"EXIF", b"Exif\0\0" + tiff), flags=8),
    ]
    assert {read_header(data, ImageLimits()).orientation for data in files} == {orientation}


@pytest.mark.parametrize("name", HOSTILE_EXIF)
def test_unreadable_orientation_is_upright(name: str) -> None:
    tiff = HOSTILE_EXIF[name]
    for data in (jpeg_with_exif(tiff), png_with(chunk(b"eXIf", tiff)), webp_of(48, 32, (b"EXIF", tiff), flags=8)):
        assert read_header(data, ImageLimits()).orientation == 1


def test_upright_size_swaps_the_sides_for_a_quarter_turn() -> None:
    sizes = [ImageHeader("JPEG", 4, 3, orientation).upright_size for orientation in range(1, 9)]
    assert sizes == [(4, 3)] * 4 + [(3, 4)] * 4


def test_animations_and_cmyk_have_readable_headers() -> None:
    assert read_header(animation("WEBP"), ALL).format == "WEBP"
    assert read_header(animation("GIF"), ALL).format == "GIF"
    assert read_header(animation("PNG"), ALL).format == "PNG"
    assert (read_header(cmyk(), ALL).width, read_header(cmyk(), ALL).height) == (48, 32)


def gif(*blocks: bytes) -> bytes:
    return b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + b"".join(blocks) + b",\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;"


@pytest.mark.parametrize(
    ("blocks", "code"),
    [
        ([b"!\xfe\0", b"!\xf9\4\0\0\0\0\0", b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0", b"\0"], None),
        ([b"!\xfe" + b"\1x" * 4000 + b"\0"], None),
        ([b"!\xfe" + b"\1x" * 5000 + b"\0"], "image_too_large"),
        ([b"\0" * 5000], "image_too_large"),
        ([b"!\xf9\0"], "invalid_image"),
        ([b"!\xff\x0bNETSCAPE2.0\0"], "invalid_image"),
        ([b";"], "invalid_image"),
        ([b"!\xfe\xff"], "invalid_image"),
    ],
    ids=["usual", "many", "too many", "stray bytes", "empty", "empty application", "no frame", "cut off"],
)
def test_what_stands_in_front_of_a_gif_frame_is_bounded(blocks: list[bytes], code: str | None) -> None:
    """Pillow skips it block by block: 9 MB of it took 1.4 to 1.7 s."""
    assert code_of(gif(*blocks), ALL) == code


def test_checksums_are_left_to_the_decoder() -> None:
    assert read_header(png(ihdr(2, 2), [b"\0" * 6] * 2)[:-4] + b"\0" * 4, ALL) == ImageHeader("PNG", 2, 2)
