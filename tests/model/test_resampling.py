from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from photos import photo
from PIL import Image

from model import resampling
from model.manifest import Interpolation
from model.resampling import SIMD_PIXELS, resample

FILTERS: tuple[Interpolation, ...] = ("bilinear", "bicubic", "lanczos")
LEVEL = 0.5  # of 255: the largest mean difference on a photograph; the largest measured was 0.37

needs_simd = pytest.mark.skipif(resampling.simd is None, reason="cykooz-resizer has no wheel here")


def whole(image: Image.Image) -> tuple[float, float, float, float]:
    return 0.0, 0.0, float(image.width), float(image.height)


def difference(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.int64]:
    assert left.shape == right.shape
    assert left.dtype == right.dtype == np.uint8
    return np.abs(left.astype(np.int64) - right)


def assert_close(image: Image.Image, size: tuple[int, int], interpolation: Interpolation, box: Any) -> None:
    both = [resample(image, size, interpolation, box, exact=exact) for exact in (False, True)]
    assert both[0].shape == (size[1], size[0], 3)
    error = difference(*both)
    assert error.mean() < LEVEL
    assert error.max() <= 10


# --- agreement ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1_000, 90), (90, 1_000), (100, 75), (225, 224)])
@pytest.mark.parametrize("target", [(224, 224), (384, 384), (96, 160), (32, 16)])
def test_default_and_exact_agree_on_the_whole_and_on_a_part(
    target: tuple[int, int], size: tuple[int, int], interpolation: Interpolation
) -> None:
    """Enlarged and reduced, square and stretched; a crop of whole pixels and one that cuts through them."""
    image = photo(*size)
    width, height = size
    for box in (
        whole(image),
        (5.0, 3.0, width - 7.0, height - 2.0),
        (width * 0.1103, height * 0.0714, width * 0.9371, height * 0.8889),
    ):
        assert_close(image, target, interpolation, box)


@needs_simd
def test_the_default_is_not_pillow_by_another_name() -> None:
    image = photo(640, 480)
    exact, default = (resample(image, (224, 224), "bicubic", whole(image), exact=exact) for exact in (True, False))
    assert difference(default, exact).any()


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 100), (100, 1), (1, 10_000), (10_000, 1), (40_000, 1)])
def test_single_pixels_and_lines_become_any_size(size: tuple[int, int], interpolation: Interpolation) -> None:
    image = photo(*size)
    middle = size[0] / 2 - 0.5, size[1] / 2 - 0.5, size[0] / 2 + 0.5, size[1] / 2 + 0.5
    for box in (whole(image), middle):
        assert_close(image, (224, 224), interpolation, box)
        assert_close(image, (1, 1), interpolation, box)


@pytest.mark.parametrize("exact", [True, False])
def test_nothing_changes_where_nothing_is_resized(exact: bool) -> None:
    image = photo(64, 48)
    assert (resample(image, (64, 48), "bicubic", whole(image), exact=exact) == np.asarray(image)).all()
    part = resample(image, (30, 20), "lanczos", (3.0, 5.0, 33.0, 25.0), exact=exact)
    assert (part == np.asarray(image)[5:25, 3:33]).all()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("interpolation", FILTERS)
def test_one_colour_stays_that_colour(interpolation: Interpolation, exact: bool) -> None:
    image = Image.new("RGB", (61, 35), (0, 127, 255))
    pixels = resample(image, (48, 80), interpolation, (1.25, 2.5, 58.75, 30.1), exact=exact)
    assert (pixels == (0, 127, 255)).all()


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    edges=st.tuples(*[st.floats(0, 1)] * 4),
    wide=st.integers(1, 60),
    high=st.integers(1, 60),
    interpolation=st.sampled_from(FILTERS),
)
def test_any_part_of_any_image_becomes_any_size(
    width: int, height: int, edges: tuple[float, ...], wide: int, high: int, interpolation: Interpolation
) -> None:
    (left, right), (top, bottom) = sorted(edges[:2]), sorted(edges[2:])
    # At least a hundredth of a pixel: Pillow refuses an empty part.
    left, top = min(left * width, width - 0.01), min(top * height, height - 0.01)
    box = left, top, max(right * width, left + 0.01), max(bottom * height, top + 0.01)
    image = Image.fromarray(np.full((height, width, 3), (10, 200, 30), np.uint8))
    assert (resample(image, (wide, high), interpolation, box, exact=False) == (10, 200, 30)).all()


# --- who resamples --------------------------------------------------------------------------------------------------
class Refusing:
    """Stands in the package's place, and must not be asked."""

    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"{name} was used")


@pytest.mark.parametrize("interpolation", FILTERS)
def test_exact_is_pillow(interpolation: Interpolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "simd", Refusing())
    image, box = photo(300, 200), (10.3, 20.7, 290.1, 180.2)
    expected = image.resize((224, 224), Image.Resampling[interpolation.upper()], box)
    assert (resample(image, (224, 224), interpolation, box, exact=True) == np.asarray(expected)).all()


@pytest.mark.parametrize("interpolation", FILTERS)
def test_without_the_package_everything_has_the_bits_of_exact(
    interpolation: Interpolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "simd", None)
    image, box = photo(300, 200), (10.3, 20.7, 290.1, 180.2)
    default, exact = (resample(image, (224, 224), interpolation, box, exact=exact) for exact in (False, True))
    assert (default == exact).all()


def test_a_large_image_has_the_bits_of_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "simd", Refusing())
    image = photo(1_500, SIMD_PIXELS // 1_500 + 1)
    default, exact = (resample(image, (224, 224), "bicubic", whole(image), exact=exact) for exact in (False, True))
    assert (default == exact).all()


@needs_simd
def test_the_largest_image_that_is_not_large_agrees_too() -> None:
    image = photo(1_500, SIMD_PIXELS // 1_500)
    assert_close(image, (224, 224), "bicubic", whole(image))


# --- repeated and together ------------------------------------------------------------------------------------------
def test_the_same_image_gives_the_same_bits_in_any_thread() -> None:
    images = [photo(120 + 31 * index, 260 - 17 * index, index) for index in range(8)]

    def work(place: int) -> bytes:
        image = images[place % 8]
        return resample(image, (96, 96), FILTERS[place % 3], whole(image), exact=False).tobytes()

    alone = [work(place) for place in range(24)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, [*range(24)] * 8)) == alone * 8


@needs_simd
@pytest.mark.parametrize("interpolation", FILTERS)
def test_the_bits_do_not_depend_on_the_instructions_of_the_processor(
    interpolation: Interpolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fixed-point arithmetic is the same with and without SIMD: two machines give one answer."""
    image, plain = photo(301, 203), resampling.simd.Resizer
    box = 3.3, 4.4, 290.1, 180.2
    fast = resample(image, (224, 96), interpolation, box, exact=False)

    def without_simd() -> Any:
        resizer = plain()
        resizer.cpu_extensions = resampling.simd.CpuExtensions.none
        return resizer

    monkeypatch.setattr(resampling.simd, "Resizer", without_simd)
    assert (resample(image, (224, 96), interpolation, box, exact=False) == fast).all()
