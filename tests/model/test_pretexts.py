"""Targets of pre-training against values computed by hand."""

import math

import pytest
import torch

from model.manifest import Preprocessing
from model.pretexts import TARGETS, colours, make_pretext

SPEC = Preprocessing(patch_size=2, native_grid=(2, 2), max_patches=16, resize="squash")


def patch(*pixels: tuple[int, int, int]) -> torch.Tensor:
    """uint8 `[1, P*P*3]`, row by row."""
    return torch.tensor(pixels, dtype=torch.uint8).view(1, -1)


def test_a_mean_colour_has_three_bits_a_channel() -> None:
    # Means 63.5, 128 and 255: levels 1, 4 and 7 of 32 each.
    two = patch((0, 128, 255), (127, 128, 255), (127, 128, 255), (0, 128, 255))
    assert colours(two, 2, 1).tolist() == [[1 * 64 + 4 * 8 + 7]]


def test_levels_are_of_equal_width() -> None:
    greys = torch.arange(256, dtype=torch.uint8)[:, None].expand(-1, 3).contiguous()
    expected = [(value // 32) * (64 + 8 + 1) for value in range(256)]
    assert colours(greys, 1, 1).flatten().tolist() == expected


def test_squares_have_a_colour_each_row_by_row() -> None:
    quarters = patch((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
    assert colours(quarters, 2, 2).tolist() == [[7 * 64, 7 * 8, 7, 511]]


def test_a_patch_of_16_has_4x4_squares_of_4x4_pixels() -> None:
    pixels = torch.zeros(16, 16, 3, dtype=torch.uint8)
    pixels[4:8, 8:12] = 100  # the square of row 1, column 2; level 3
    found = colours(pixels.view(1, -1), 16, 4)
    assert found.shape == (1, 16)
    assert found[0].tolist() == [3 * 73 if square == 6 else 0 for square in range(16)]


@pytest.mark.parametrize(
    ("target", "patch_size", "outputs"),
    [
        ("colour", 16, 512),
        ("downsized", 16, 16 * 512),
        ("downsized", 7, 16 * 512),
        ("downsized", 2, 4 * 512),
        ("pixels", 16, 768),
    ],
)
def test_as_much_is_predicted_as_the_paper_says(target: str, patch_size: int, outputs: int) -> None:
    spec = Preprocessing(patch_size, (2, 2), 16, resize="squash")
    pretext = make_pretext(target, spec)  # type: ignore[arg-type]
    assert pretext.outputs == outputs
    patches = torch.randint(0, 256, (3, spec.patch_dim), dtype=torch.uint8)
    assert pretext.loss(torch.zeros(3, outputs), patches).isfinite()


def test_who_knows_nothing_of_colours_has_the_entropy_of_all_and_who_knows_none() -> None:
    pretext = make_pretext("downsized", SPEC)
    quarters = patch((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
    assert pretext.loss(torch.zeros(1, 4 * 512), quarters).item() == pytest.approx(math.log(512))
    sure = torch.full((1, 4, 512), -100.0)
    for square, colour in enumerate((448, 56, 7, 511)):
        sure[0, square, colour] = 100
    assert pretext.loss(sure.flatten(1), quarters).item() == pytest.approx(0)


def test_pixels_are_compared_as_the_model_reads_them() -> None:
    pretext = make_pretext("pixels", SPEC)  # mean and std 0.5: black is -1, white is 1
    black_and_white = patch((0, 0, 0), (255, 255, 255), (0, 0, 0), (255, 255, 255))
    predicted = torch.tensor([-1.0, 0.0, -1.0, 1.0]).repeat_interleave(3)[None]
    assert pretext.loss(predicted, black_and_white).item() == pytest.approx(1 / 4)


def test_there_are_three() -> None:
    assert TARGETS == ("colour", "downsized", "pixels")
