from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_artifact import MANIFEST

from model.manifest import Manifest
from service.batching import BatchLimits
from service.buckets import Buckets, choose_buckets

LIMITS = BatchLimits(max_patches=2048, max_images=64, overhead_patches=256)


def manifest(native: int, longest: int) -> Manifest:
    spec = replace(MANIFEST.preprocessing, native_grid=(1, native), max_patches=longest)
    return replace(MANIFEST, preprocessing=spec)


def test_a_batch_is_padded_to_the_next_length_and_the_next_size() -> None:
    buckets = Buckets((64, 196, 256), max_patches=2048, max_images=64)
    assert buckets.shape(1, 1) == (1, 64)
    assert buckets.shape(3, 64) == (4, 64)
    assert buckets.shape(5, 65) == (8, 196)
    assert buckets.shape(2, 196) == (2, 196)
    assert buckets.shape(10, 200) == (10, 256), "2048 // 197 images at most fall into the last bucket"
    assert buckets.shape(9, 200) == (10, 256)


def test_without_buckets_a_batch_keeps_its_shape() -> None:
    assert Buckets().shape(7, 113) == (7, 113)
    assert Buckets().shapes(113) == []


def test_a_batch_over_every_bucket_keeps_its_shape() -> None:
    buckets = Buckets((64,), max_patches=256, max_images=4)
    assert buckets.shape(1, 65) == (1, 65)
    assert buckets.shape(9, 64) == (9, 64)


def test_the_native_length_warms_up_first_and_the_largest_of_it_first_of_all() -> None:
    shapes = Buckets((4, 8), max_patches=16, max_images=4).shapes(4)
    assert shapes == [(4, 4), (2, 4), (1, 4), (3, 8), (2, 8), (1, 8)]


@pytest.mark.parametrize(
    ("setting", "provider", "mixed", "any_lengths"),
    [
        ("auto", "cpu", True, False),
        ("auto", "cuda", True, True),
        ("auto", "tensorrt", True, True),
        ("none", "cuda", True, False),
        ("50,100", "cpu", True, True),
        ("50,100", "cuda", False, False),
    ],
)
def test_who_gets_buckets(setting: str, provider: str, mixed: bool, any_lengths: bool) -> None:
    chosen = choose_buckets(setting, provider, manifest(49, 196), replace(LIMITS, mixed_grids=mixed))  # type: ignore[arg-type]
    assert bool(chosen.lengths) == any_lengths


def test_given_lengths_are_joined_by_the_native_and_the_longest() -> None:
    assert choose_buckets("64,300,128,64", "cuda", manifest(49, 196), LIMITS).lengths == (49, 64, 128, 196)


@given(st.data(), st.integers(1, 5000), st.integers(1, 300))
def test_every_batch_within_the_limits_meets_a_shape_that_was_warmed_up(
    data: st.DataObject, longest: int, max_images: int
) -> None:
    native = data.draw(st.integers(1, longest))
    limits = BatchLimits(data.draw(st.integers(longest, 20_000)), max_images, 0)
    buckets = choose_buckets("auto", "cuda", manifest(native, longest), limits)
    shapes = buckets.shapes(native)
    assert len(shapes) == len(set(shapes))
    assert native in buckets.lengths
    length = data.draw(st.integers(1, longest))
    images = data.draw(st.integers(1, max(1, min(max_images, limits.max_patches // length))))
    padded_images, padded_length = buckets.shape(images, length)
    assert (padded_images, padded_length) in shapes
    assert images <= padded_images < 2 * images
    assert padded_images <= max_images
    assert length <= padded_length <= max(16, int(1.25 * length) + 1)
