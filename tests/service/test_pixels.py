import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hostile_images import encode, picture
from tiny_artifact import MANIFEST

from model.headers import ImageHeader
from model.preprocess import choose_grid, decode_for_grid, enough
from model.resampling import size_of
from service.errors import DeadlineExceeded
from service.pixels import PixelBudget, pixels_to_decode


def test_what_fits_is_held_together_and_given_back() -> None:
    budget = PixelBudget(100)
    with budget.hold(60, 0), budget.hold(40, 0):
        assert budget.held == 100
    assert budget.held == 0


def test_what_does_not_fit_in_time_is_late() -> None:
    budget = PixelBudget(100)
    with budget.hold(60, 0), pytest.raises(DeadlineExceeded), budget.hold(41, 0.01):
        pass
    with budget.hold(100, 0):
        assert budget.held == 100


def test_an_image_alone_is_always_decoded() -> None:
    budget = PixelBudget(100)
    with budget.hold(1000, 0), pytest.raises(DeadlineExceeded), budget.hold(1, 0):
        pass


def test_a_large_image_is_not_passed_by_small_ones() -> None:
    budget, order = PixelBudget(100), []
    waiting = threading.Semaphore(0)

    def decode(pixels: int) -> None:
        waiting.release()
        with budget.hold(pixels, 10):
            order.append(pixels)

    with ThreadPoolExecutor(2) as pool:
        with budget.hold(60, 0):
            for pixels in (90, 20):  # the small one would fit
                pool.submit(decode, pixels)
                assert waiting.acquire(timeout=5)
                while len(budget._waiting) < (1 if pixels == 90 else 2):
                    pass
        pool.shutdown()
    assert order == [90, 20]


def test_never_more_than_the_limit_is_held() -> None:
    budget, most = PixelBudget(100), 0

    def decode(pixels: int) -> None:
        nonlocal most
        with budget.hold(pixels, 10):
            most = max(most, budget.held)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [30, 50, 70, 20] * 100))
    assert 0 < most <= 100
    assert budget.held == 0


@pytest.mark.parametrize(
    ("header", "at_least", "pixels"),
    [
        (ImageHeader("PNG", 4000, 3000), (448, 448), 12_000_000),
        (ImageHeader("JPEG", 4000, 3000), None, 12_000_000),
        (ImageHeader("JPEG", 4000, 3000), (448, 336), 500 * 375),
        (ImageHeader("JPEG", 4000, 3000), (501, 300), 1000 * 750),
        (ImageHeader("JPEG", 4001, 3000, 6), (300, 501), 750 * 1001),
        (ImageHeader("JPEG", 400, 300), (448, 448), 120_000),
        (ImageHeader("JPEG", 4000, 3000, 1, buffered=True), (448, 448), 12_000_000),
    ],
)
def test_a_jpeg_of_one_scan_is_counted_at_the_size_it_is_decoded_to(
    header: ImageHeader, at_least: tuple[int, int] | None, pixels: int
) -> None:
    assert pixels_to_decode(header, at_least) == pixels


@pytest.mark.parametrize("size", [(1600, 1200), (1601, 1199), (901, 300), (300, 200), (226, 225)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_count_is_what_pillow_decodes(size: tuple[int, int], orientation: int) -> None:
    header, spec = ImageHeader("JPEG", *size, orientation), MANIFEST.preprocessing
    grid = choose_grid(*header.upright_size, spec)
    image = decode_for_grid(encode(picture(*size), "JPEG"), header, spec, grid)
    assert pixels_to_decode(header, enough(header, spec, grid)) == math.prod(size_of(image))
