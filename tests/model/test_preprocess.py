import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hostile_images import (
    CASES,
    HOSTILE_EXIF,
    Case,
    animation,
    chunk,
    cmyk,
    encode,
    exif,
    ihdr,
    jpeg_with_exif,
    lying_png,
    picture,
    png,
    png_with,
    webp_of,
)
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from model import resampling
from model.headers import ImageError, ImageHeader, ImageLimits, InvalidImage, read_header
from model.manifest import Preprocessing
from model.preprocess import choose_grid, cut, decode, patchify, preprocess, region, resize, to_rgb

CROP = Preprocessing(16, (14, 14), 196, "crop", 256)
SQUASH = Preprocessing(8, (6, 4), 24, "squash")
ASPECT = Preprocessing(16, (14, 14), 256, "aspect")
SPECS = {"crop": CROP, "squash": SQUASH, "aspect": ASPECT}
LIMITS = ImageLimits()
ANY = ImageLimits(max_aspect=1e9, formats=("JPEG", "PNG", "WEBP", "GIF", "BMP"))
GREEN = (10, 200, 30)


def decoded(data: bytes, limits: ImageLimits = ANY, background: tuple[int, int, int] = GREEN) -> NDArray[np.uint8]:
    header = read_header(data, limits)
    return np.asarray(decode(data, header, at_least=None, background=background))


def first_pixel(data: bytes) -> tuple[int, ...]:
    return tuple(decoded(data)[0, 0].tolist())


def difference(left: Any, right: Any) -> NDArray[np.int64]:
    return np.abs(np.asarray(left).astype(np.int64) - np.asarray(right))


# --- the catalogue --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", [case for case in CASES if case.code is None], ids=str)
def test_what_is_odd_but_sound_becomes_patches(case: Case) -> None:
    assert preprocess(case.build(), CROP, LIMITS).patches.shape == (196, 768)


@pytest.mark.parametrize("case", [case for case in CASES if case.code is not None], ids=str)
def test_what_is_refused_is_refused_with_its_code_and_a_reason(case: Case) -> None:
    with pytest.raises(ImageError) as refused:
        preprocess(case.build(), CROP, LIMITS)
    assert refused.value.code == case.code
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert ": " in str(refused.value)  # what is wrong, and what to do
    assert " at 0x" not in str(refused.value)  # the address of an object


@given(
    name=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    end=st.floats(0.1, 1),
)
def test_no_broken_file_raises_anything_but_an_image_error(
    name: str, changes: list[tuple[float, int]], end: float
) -> None:
    data = bytearray(encode(picture(), name))
    for place, value in changes:
        data[int(place * len(data))] = value
    with suppress(ImageError):
        preprocess(bytes(data[: max(1, int(end * len(data)))]), ASPECT, ANY)


@pytest.mark.parametrize(
    "error",
    [OSError("x"), ValueError("x"), SyntaxError("x"), EOFError(), MemoryError(), IndexError("x"), OverflowError("x")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_is_an_invalid_image(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(InvalidImage, match="cannot be decoded"):
        decoded(encode(picture(), "PNG"))


def test_a_decoder_that_finds_another_size_than_the_header_is_not_let_loose(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        pytest.fail("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(InvalidImage, match="contradicts"):
        decode(encode(picture(), "PNG"), ImageHeader("PNG", 4, 4), at_least=None, background=GREEN)


def test_truncated_images_are_never_completed_with_grey() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_corrupt_metadata_warns_nobody() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for tiff in HOSTILE_EXIF.values():
            for data in (
                jpeg_with_exif(tiff),
                png_with(chunk(b"eXIf", tiff)),
                webp_of(48, 32, (b"EXIF", tiff), flags=8),
            ):
                decoded(data)
        decoded(png_with(chunk(b"acTL", b"\0" * 8) * 2))
    assert seen == []


def test_another_librarys_pixel_limit_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError) as refused:
        preprocess(lying_png(13_000, 13_000), CROP, LIMITS)
    assert refused.value.code == "image_too_large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)  # a warning at 1,536 pixels, an error over 2,000
    assert preprocess(encode(picture(48, 32), "PNG"), CROP, LIMITS).width == 48
    with pytest.raises(ImageError, match="Pillow's own limit") as refused:
        preprocess(encode(picture(64, 64), "PNG"), CROP, LIMITS)
    assert refused.value.code == "image_too_large"


# --- geometry -------------------------------------------------------------------------------------------------------
sides = st.integers(1, 40_000)
specs = st.builds(
    lambda patch, rows, columns, budget, mode: Preprocessing(
        patch, (rows, columns), budget, mode, 2 * patch * max(rows, columns) if mode == "crop" else None
    ),
    st.sampled_from([1, 4, 8, 14, 16, 32]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 2_000),
    st.sampled_from(["crop", "squash", "aspect"]),
)
budgets = st.none() | st.integers(1, 3_000)


@given(width=sides, height=sides, spec=specs, budget=budgets)
@example(width=40_000, height=1, spec=ASPECT, budget=None)
def test_the_grid_is_in_the_budget_and_costs_the_same_when_the_sides_swap(
    width: int, height: int, spec: Preprocessing, budget: int | None
) -> None:
    rows, columns = choose_grid(width, height, spec, budget)
    assert rows >= 1
    assert columns >= 1
    assert rows * columns <= min(spec.max_patches, budget or spec.max_patches)
    across, down = choose_grid(height, width, spec, budget)
    assert across * down == rows * columns
    if spec.resize != "aspect":
        assert rows <= spec.native_grid[0]
        assert columns <= spec.native_grid[1]


@given(width=sides, height=sides, budget=st.integers(1, 3_000))
def test_aspect_never_enlarges_beyond_whole_patches_and_turns_with_the_image(
    width: int, height: int, budget: int
) -> None:
    spec = replace(ASPECT, max_patches=3_000)
    rows, columns = choose_grid(width, height, spec, budget)
    assert rows <= -(-height // 16)
    assert columns <= -(-width // 16)
    if width != height:
        assert choose_grid(height, width, spec, budget) == (columns, rows)


@given(width=st.integers(100, 4_000), height=st.integers(100, 4_000), budget=st.integers(64, 2_000))
def test_aspect_keeps_the_shape_as_well_as_whole_patches_can(width: int, height: int, budget: int) -> None:
    rows, columns = choose_grid(width, height, replace(ASPECT, max_patches=2_000), budget)
    stretch = (width / height) / (columns / rows)
    assert max(stretch, 1 / stretch) - 1 < 1.5 / min(rows, columns)


@pytest.mark.parametrize(
    ("size", "budget", "grid"),
    [
        ((1, 1), None, (1, 1)),
        ((15, 16), None, (1, 1)),
        ((28, 28), None, (2, 2)),
        ((64, 32), None, (2, 4)),
        ((1_000, 1_000), None, (16, 16)),
        ((1_000, 1_000), 50, (7, 7)),
        ((1_000, 500), 50, (5, 10)),
        ((10_000, 1), None, (1, 256)),
        ((1, 10_000), 20, (20, 1)),
        ((1_000, 1_000), 1, (1, 1)),
    ],
)
def test_aspect_grids(size: tuple[int, int], budget: int | None, grid: tuple[int, int]) -> None:
    assert choose_grid(*size, ASPECT, budget) == grid


@pytest.mark.parametrize(
    ("spec", "budget", "grid"),
    [
        (CROP, None, (14, 14)),
        (CROP, 10_000, (14, 14)),
        (CROP, 195, (13, 13)),
        (CROP, 98, (9, 9)),
        (CROP, 1, (1, 1)),
        (SQUASH, 23, (5, 3)),
        (SQUASH, 6, (3, 2)),
        (replace(CROP, max_patches=100), None, (10, 10)),
    ],
)
def test_crop_and_squash_grids(spec: Preprocessing, budget: int | None, grid: tuple[int, int]) -> None:
    assert choose_grid(640, 480, spec, budget) == grid


@pytest.mark.parametrize("budget", [0, -3])
def test_a_budget_without_a_patch_is_a_mistake(budget: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        choose_grid(10, 10, CROP, budget)


@pytest.mark.parametrize("mode", SPECS)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 100), (100, 1), (1, 10_000), (10_000, 1), (333, 77), (15, 640)])
@pytest.mark.parametrize("budget", [None, 7])
def test_any_size_becomes_exactly_its_grid(mode: str, size: tuple[int, int], budget: int | None) -> None:
    spec = SPECS[mode]
    sequence = preprocess(encode(picture(*size), "PNG"), spec, ANY, max_patches=budget)
    assert sequence.grid == choose_grid(*size, spec, budget)
    assert sequence.patches.shape == (sequence.grid[0] * sequence.grid[1], spec.patch_dim)
    assert sequence.patches.dtype == np.uint8
    assert sequence.patches.flags.c_contiguous
    assert (sequence.width, sequence.height, sequence.format) == (*size, "PNG")


def test_a_thin_image_never_becomes_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    plain = Image.Image.resize

    def spy(self: Image.Image, size: tuple[int, int], *rest: Any) -> Image.Image:
        made.append(size)
        return plain(self, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", spy)
    thin = [picture(*size) for size in ((1, 10_000), (10_000, 1), (100, 1))]
    made.clear()
    for image in thin:
        resize(image, CROP, (14, 14), exact=True)
    assert made == [(224, 224)] * 3


# --- exact crop is the reference evaluation transform -----------------------------------------------------------------
def textured(width: int, height: int) -> Image.Image:
    """Detail at several scales, so that a shift or another filter shows."""
    noise = np.random.default_rng(width * height)
    coarse = Image.fromarray(noise.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((width, height))
    fine = Image.fromarray(noise.integers(0, 256, (height // 2 + 1, width // 2 + 1, 3), dtype=np.uint8))
    return Image.blend(coarse, fine.resize((width, height)), 0.4)


def agree(ours: Any, theirs: Any) -> bool:
    """Equal up to rounding: Pillow resamples the columns or the rows first, whichever is less work, and rounds between.

    For a thin image that choice differs between the box and the whole, and 1 value in 100,000 is off by two levels.
    """
    error = difference(ours, theirs)
    return bool(error.max() <= 2 and (error > 1).mean() < 1e-4)


SIZES = [(640, 480), (480, 640), (256, 256), (300, 257), (100, 75), (1_000, 90), (90, 1_000), (225, 224)]


@pytest.mark.parametrize("size", SIZES)
def test_crop_equals_resizing_first_and_cropping_then(size: tuple[int, int]) -> None:
    image = textured(*size)
    scale = 256 / min(size)
    width, height = (int(side * scale) if side != min(size) else 256 for side in size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    whole = image.resize((width, height), Image.Resampling.BICUBIC)
    assert agree(resize(image, CROP, (14, 14), exact=True), whole.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_equals_torchvision(size: tuple[int, int], interpolation: Any) -> None:
    from torchvision import transforms

    mode = transforms.InterpolationMode(interpolation)
    reference = transforms.Compose([transforms.Resize(256, mode), transforms.CenterCrop(224)])
    image = textured(*size)
    spec = replace(CROP, interpolation=interpolation)
    assert agree(resize(image, spec, (14, 14), exact=True), reference(image))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("side", "fraction"), [(224, 0.875), (224, 0.9), (224, 1.0), (384, 1.0)])
def test_crop_equals_timm(size: tuple[int, int], side: int, fraction: float) -> None:
    from timm import data

    reference = data.create_transform(
        (3, side, side), interpolation="bicubic", crop_pct=fraction, mean=(0, 0, 0), std=(1, 1, 1)
    )
    spec = Preprocessing(16, (side // 16,) * 2, 4_096, "crop", int(side / fraction))
    image = textured(*size)
    theirs = reference(image).mul(255).round().permute(1, 2, 0).numpy()
    assert agree(resize(image, spec, spec.native_grid, exact=True), theirs)


def test_a_smaller_budget_keeps_the_crop_fraction() -> None:
    image = textured(512, 512)
    smaller = resize(image, CROP, (7, 7))
    native = Image.fromarray(resize(image, CROP, (14, 14))).resize((112, 112), Image.Resampling.BICUBIC)
    assert difference(smaller, native).mean() < 2  # of 255; with the whole image instead of the crop it is 20


def test_a_wide_native_grid_is_covered_by_a_tall_image() -> None:
    spec = Preprocessing(16, (4, 8), 32, "crop", 64)
    tall = textured(100, 300)
    pixels = resize(tall, spec, (4, 8), exact=True)
    middle = tall.resize((128, 64), Image.Resampling.BICUBIC, (0, 125, 100, 175))
    assert difference(pixels, middle).max() <= 1


def test_squash_and_aspect_are_plain_resizes_of_the_whole_image() -> None:
    image = textured(333, 212)
    for spec in (SQUASH, ASPECT):
        rows, columns = grid = choose_grid(333, 212, spec)
        size = columns * spec.patch_size, rows * spec.patch_size
        assert (resize(image, spec, grid, exact=True) == np.asarray(image.resize(size, Image.Resampling.BICUBIC))).all()


# --- patches --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", SIZES)
def test_squash_may_keep_the_centre_of_a_larger_square(size: tuple[int, int]) -> None:
    image = textured(*size)
    spec = Preprocessing(16, (14, 14), 196, "squash", 256)
    theirs = image.resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240))
    assert agree(resize(image, spec, (14, 14), exact=True), theirs)


def test_half_a_pixel_off_the_centre_goes_where_the_source_puts_it() -> None:
    image = textured(910, 448)  # 455 pixels wide when 224 high: 115.5 on the left of the crop
    whole = image.resize((455, 224), Image.Resampling.BICUBIC)
    for mode, left in (("crop", 116), ("crop-floor", 115)):
        spec = Preprocessing(16, (14, 14), 196, mode, 224)  # type: ignore[arg-type]
        assert agree(resize(image, spec, (14, 14), exact=True), whole.crop((left, 0, left + 224, 224)))


@pytest.mark.parametrize(("rows", "columns", "side"), [(1, 1, 1), (2, 3, 4), (3, 2, 5), (1, 7, 2)])
def test_patches_are_in_row_column_channel_order(rows: int, columns: int, side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (rows * side, columns * side, 3), dtype=np.uint8)
    expected = [
        [
            pixels[row * side + y, column * side + x, channel]
            for y in range(side)
            for x in range(side)
            for channel in range(3)
        ]
        for row in range(rows)
        for column in range(columns)
    ]
    patches = patchify(pixels, side)
    assert patches.tolist() == [[int(value) for value in patch] for patch in expected]
    assert patches.flags.c_contiguous
    assert patches.dtype == np.uint8


@pytest.mark.parametrize("name", SPECS)
def test_patches_are_written_into_a_given_place_and_nowhere_else(name: str) -> None:
    spec, data = SPECS[name], encode(picture(60, 40), "PNG")
    alone = preprocess(data, spec, LIMITS)
    batch = np.full((3, len(alone.patches) + 5, spec.patch_dim), 7, np.uint8)
    sequence = preprocess(data, spec, LIMITS, out=batch[1, : len(alone.patches)])
    assert np.shares_memory(sequence.patches, batch)
    assert np.array_equal(batch[1, : len(alone.patches)], alone.patches)
    batch[1, : len(alone.patches)] = 7
    assert (batch == 7).all()


@pytest.mark.parametrize(
    "out",
    [
        np.empty((7, 12), np.uint8),
        np.empty((1, 12), np.uint8),
        np.empty((6, 13), np.uint8),
        np.empty((6, 24), np.uint8)[:, ::2],
        np.empty((6, 12), np.float32),
    ],
)
def test_a_place_of_another_shape_layout_or_type_is_refused(out: NDArray[Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        patchify(np.zeros((4, 6, 3), np.uint8), 2, out)


# --- EXIF orientation -----------------------------------------------------------------------------------------------
# What a stored image must be turned by so that it stands upright again, undone: the stored form of an upright image.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def stored_as(name: str, orientation: int, upright: Image.Image) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(upright))))
    options: dict[str, Any] = {"lossless": True} if name == "WEBP" else {}
    return encode(image, name, exif=exif(orientation), **options)


@pytest.mark.parametrize("mode", SPECS)
@pytest.mark.parametrize("name", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_gives_the_bits_of_the_upright_one(orientation: int, name: str, mode: str) -> None:
    upright = textured(150, 70)
    expected = preprocess(encode(upright, "PNG"), SPECS[mode], LIMITS)
    turned = preprocess(stored_as(name, orientation, upright), SPECS[mode], LIMITS)
    assert (turned.patches == expected.patches).all()
    assert (turned.grid, turned.width, turned.height) == (expected.grid, 150, 70)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_turns_as_pillow_turns_it(orientation: int) -> None:
    from PIL import ImageOps

    data = jpeg_with_exif(exif(orientation), encode(picture(48, 32), "JPEG"))
    with Image.open(BytesIO(data)) as image:
        assert (decoded(data) == np.asarray(ImageOps.exif_transpose(image))).all()


# --- JPEG at a reduced scale ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1_601, 1_203), (905, 1_511)])
@pytest.mark.parametrize("mode", SPECS)
def test_the_reduced_scale_costs_less_than_one_level_on_average(
    orientation: int, size: tuple[int, int], mode: str
) -> None:
    """Against the full decode. Taking the rounded-up size for the picture's own costs more than twice as much."""
    data = jpeg_with_exif(exif(orientation), encode(textured(*size), "JPEG", quality=90))
    spec = Preprocessing(8, (12, 12), 144, mode, 100 if mode == "crop" else None)  # type: ignore[arg-type]
    error = difference(preprocess(data, spec, LIMITS).patches, preprocess(data, spec, LIMITS, exact=True).patches)
    assert 0 < error.mean() < 1
    assert error.max() < 12


@given(width=st.integers(1, 700), height=st.integers(1, 700), wide=st.integers(1, 300), high=st.integers(1, 300))
def test_a_reduced_jpeg_stays_at_least_as_large_as_asked(width: int, height: int, wide: int, high: int) -> None:
    for orientation in (1, 6):
        data = jpeg_with_exif(exif(orientation), encode(Image.new("RGB", (width, height)), "JPEG"))
        header = read_header(data, ANY)
        full = header.upright_size
        image = decode(data, header, at_least=(wide, high), background=GREEN)
        assert image.width >= min(wide, full[0])
        assert image.height >= min(high, full[1])
        left, top, right, bottom = region(header, image.size)
        assert 0 <= left < right <= image.width
        assert 0 <= top < bottom <= image.height
        assert (right - left) * full[1] == pytest.approx((bottom - top) * full[0])


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", SPECS)
def test_exact_is_decoded_at_full_size_and_resized_by_pillow(
    mode: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a reduced scale and without the SIMD resampler nothing is left that could make a difference."""
    data = encode(textured(900, 700), name)
    exact = preprocess(data, SPECS[mode], LIMITS, exact=True).patches
    header, grid = read_header(data, LIMITS), choose_grid(900, 700, SPECS[mode])
    monkeypatch.setattr(resampling, "simd", None)
    full = decode(data, header, at_least=None, background=GREEN)
    assert (cut(full, header, SPECS[mode], grid).patches == exact).all()


def test_a_large_jpeg_is_decoded_small_unless_exact() -> None:
    data = encode(picture(2_048, 1_024), "JPEG")
    header = read_header(data, LIMITS)
    sizes = [decode(data, header, at_least=at, background=GREEN).size for at in (None, (512, 256), (513, 256))]
    assert sizes == [(2_048, 1_024), (512, 256), (1_024, 512)]


# --- colours --------------------------------------------------------------------------------------------------------
def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values = [0, 128, 129, 257, 32_767, 32_768, 65_535]
    data = png(ihdr(len(values), 1, 16, 0), [np.array(values, ">u2").tobytes()])
    assert decoded(data)[0].tolist() == [[round(value / 257)] * 3 for value in values]


def test_16_bit_grey_of_other_modes() -> None:
    values = np.array([[0, 257, 65_535]])
    for mode in ("I;16", "I;16L", "I;16B", "I"):
        image = Image.fromarray(values.astype(np.int32)) if mode == "I" else Image.fromarray(values.astype(np.uint16))
        assert image.mode.startswith("I")
        assert np.asarray(to_rgb(image, GREEN))[0, :, 0].tolist() == [0, 1, 255]
    for wrong in (-1, 65_536):
        with pytest.raises(InvalidImage, match="16 bits"):
            to_rgb(Image.fromarray(np.array([[wrong]], np.int32)), GREEN)


def test_16_bit_colours_keep_their_high_byte() -> None:
    assert first_pixel(png(ihdr(1, 1, 16, 2), [b"\x12\xff\x80\x00\xff\x01"])) == (0x12, 0x80, 0xFF)


@pytest.mark.parametrize("mode", ["F", "LAB", "HSV"])
def test_kinds_of_pixels_without_a_known_range_are_refused(mode: str) -> None:
    with pytest.raises(InvalidImage, match=mode):
        to_rgb(Image.new(mode, (2, 2)), GREEN)


def test_rgb_is_passed_on_without_a_copy() -> None:
    image = picture()
    assert to_rgb(image, GREEN) is image


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_transparency_shows_the_background_and_never_the_hidden_colour(name: str) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 255, 255))
    image.putpixel((2, 0), (210, 0, 230, 128))
    options: dict[str, Any] = {"lossless": True, "exact": True} if name == "WEBP" else {}
    pixels = decoded(encode(image, name, **options))[0]
    assert pixels[0].tolist() == list(GREEN)
    assert pixels[1].tolist() == [0, 0, 255]
    assert difference(pixels[2], [110, 100, 130]).max() <= 1


TRANSPARENT = {
    "grey with alpha": (ihdr(2, 1, 8, 4), b"\x80\x00\x80\xff", b""),
    "16-bit grey with alpha": (ihdr(2, 1, 16, 4), b"\x80\x80\x00\x00\x80\x80\xff\xff", b""),
    "16-bit RGBA": (ihdr(2, 1, 16, 6), b"\x80\x80" * 3 + b"\0\0" + b"\x80\x80" * 3 + b"\xff\xff", b""),
    "grey, one value": (ihdr(2, 1, 8, 0), b"\x10\x80", chunk(b"tRNS", b"\x00\x10")),
    "4-bit grey, one value": (ihdr(2, 1, 4, 0), b"\x18", chunk(b"tRNS", b"\x00\x01")),
    "2-bit grey, one value": (ihdr(2, 1, 2, 0), b"\x60", chunk(b"tRNS", b"\x00\x01")),
    "1-bit grey, one value": (ihdr(2, 1, 1, 0), b"\x80", chunk(b"tRNS", b"\x00\x01")),
    "16-bit grey, one value": (ihdr(2, 1, 16, 0), b"\x10\x01\x80\x80", chunk(b"tRNS", b"\x10\x01")),
    "RGB, one colour": (ihdr(2, 1), b"\x01\x02\x03\x80\x80\x80", chunk(b"tRNS", b"\0\x01\0\x02\0\x03")),
    "16-bit RGB, one colour": (ihdr(2, 1, 16, 2), b"\1\2\3\4\5\6" + b"\x80" * 6, chunk(b"tRNS", b"\1\2\3\4\5\6")),
    "palette, alpha per entry": (
        ihdr(2, 1, 8, 3),
        b"\0\1",
        chunk(b"PLTE", b"\xff\0\0\x80\x80\x80") + chunk(b"tRNS", b"\x01\xff"),
    ),
    "palette, one entry": (ihdr(2, 1, 8, 3), b"\0\1", chunk(b"PLTE", b"\xff\0\0\x80\x80\x80") + chunk(b"tRNS", b"\0")),
    "2-bit palette": (ihdr(2, 1, 2, 3), b"\x10", chunk(b"PLTE", b"\xff\0\0\x80\x80\x80") + chunk(b"tRNS", b"\0\xff")),
}
OPAQUE = {"4-bit grey, one value": 136, "2-bit grey, one value": 170, "1-bit grey, one value": 0}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_every_kind_of_png_transparency_is_composited(name: str) -> None:
    header, row, chunks = TRANSPARENT[name]
    hidden, shown = decoded(png(header, [row], before=chunks))[0]
    assert difference(hidden, GREEN).max() <= 1
    assert difference(shown, [OPAQUE.get(name, 128)] * 3).max() <= 1


def test_one_bit_is_black_and_white() -> None:
    assert decoded(png(ihdr(2, 1, 1, 0), [b"\x40"]))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("adobe", [0, None], ids=["Adobe", "no marker"])
def test_cmyk_has_the_colours_of_the_picture(adobe: int | None) -> None:
    assert difference(decoded(cmyk(adobe)), picture()).mean() < 4


def test_ycck_is_converted_by_its_own_rule() -> None:
    """The same bytes read as YCCK: luma and chroma of inverted C, M, Y, and K as it is (Adobe Technical Note 5116)."""
    with Image.open(BytesIO(cmyk(0))) as image:
        stored = 255 - np.asarray(image).astype(np.float64)  # Pillow has inverted them
    luma, blue, red, key = stored[..., 0], stored[..., 1] - 128, stored[..., 2] - 128, stored[..., 3:]
    rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1)
    expected = (255 - rgb.clip(0, 255)) * key / 255
    assert difference(decoded(cmyk(2)), expected.round()).mean() < 1


def test_colour_profiles_are_ignored() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = decoded(encode(picture(), "JPEG"))
    assert (decoded(encode(picture(), "JPEG", icc_profile=profile)) == plain).all()
    assert (decoded(encode(picture(), "JPEG", icc_profile=b"\xff" * 99)) == plain).all()


# --- the first frame ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "options"), [("WEBP", {"lossless": True}), ("PNG", {}), ("GIF", {})])
def test_the_first_frame_of_an_animation_counts(name: str, options: dict[str, Any]) -> None:
    pixels = decoded(animation(name, **options))
    assert pixels.shape == (16, 24, 3)
    assert difference(pixels, [255, 0, 0]).max() <= 1


def test_the_frames_of_a_gif_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import GifImagePlugin

    monkeypatch.setattr(
        GifImagePlugin.GifImageFile, "n_frames", property(lambda _: pytest.fail("all frames were read"))
    )
    assert decoded(animation("GIF")).shape == (16, 24, 3)


def test_the_first_picture_of_an_mpo_counts_and_can_be_reduced() -> None:
    data = encode(picture(800, 600), "MPO", save_all=True, append_images=[Image.new("RGB", (800, 600))])
    sequence = preprocess(data, SQUASH, LIMITS)
    assert sequence.format == "JPEG"
    plain = preprocess(encode(picture(800, 600), "JPEG"), SQUASH, LIMITS)
    assert difference(sequence.patches, plain.patches).max() <= 2


# --- the rest -------------------------------------------------------------------------------------------------------
def test_a_known_header_is_not_read_again() -> None:
    data = encode(picture(), "PNG")
    strict = ImageLimits(max_pixels=1)
    header = read_header(data, LIMITS)
    sequence = preprocess(data, CROP, strict, header=header)
    assert (sequence.patches == preprocess(bytearray(data), CROP, LIMITS).patches).all()


def test_threads_do_not_disturb_each_other() -> None:
    files = [encode(picture(40 + index, 60), name) for index in range(6) for name in ("JPEG", "PNG", "WEBP")]
    files += [jpeg_with_exif(tiff) for tiff in HOSTILE_EXIF.values()]
    alone = [preprocess(data, CROP, LIMITS).patches for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: preprocess(data, CROP, LIMITS).patches, files * 3))
    assert all((left == right).all() for left, right in zip(alone * 3, together, strict=True))


def test_a_progressive_jpeg_is_decoded_to_its_last_scan() -> None:
    progressive = decoded(encode(picture(64, 64), "JPEG", progressive=True))
    assert (progressive == decoded(encode(picture(64, 64), "JPEG"))).all()


def test_importing_it_loads_no_training_or_export_library() -> None:
    """In a new process, because this one may have loaded anything."""
    code = (
        "import sys, model.preprocess; print(sorted({'torch', 'onnx', 'onnxruntime', 'fastapi'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
