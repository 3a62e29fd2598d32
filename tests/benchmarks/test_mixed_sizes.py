import statistics

from benchmarks.mixed_sizes import MAX_PATCHES, SHAPES, SPEC, lengths, one_shape
from model.preprocess import choose_grid


def test_there_are_twenty_shapes_and_none_is_over_the_budget() -> None:
    assert len(set(SHAPES)) == 20
    assert max(lengths(SHAPES)) <= MAX_PATCHES
    assert len(set(lengths(SHAPES))) > 10


def test_one_shape_has_the_pixels_and_the_patches_of_all() -> None:
    (width, height), patches = one_shape(SHAPES)
    rows, columns = choose_grid(width, height, SPEC, patches)
    assert abs(width * height / statistics.mean(w * h for w, h in SHAPES) - 1) < 0.01
    assert abs(rows * columns / statistics.mean(lengths(SHAPES)) - 1) < 0.02
