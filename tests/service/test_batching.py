from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.preprocess import PatchSequence
from service.batching import BatchLimits, Lanes, Turn, assemble, fill, next_turn, plan_batch


@dataclass(frozen=True)
class Image:
    length: int
    grid: tuple[int, int] = (1, 1)
    deadline_s: float = 100.0
    cancelled: bool = False


LIMITS = BatchLimits(max_patches=400, max_images=8, overhead_patches=50)


def lengths(images: list[Image]) -> list[int]:
    return [image.length for image in images]


def test_nothing_waits() -> None:
    plan = plan_batch([], 0.0, LIMITS)
    assert (plan.batch, plan.expired, plan.cancelled, plan.full) == ([], [], [], False)


def test_dead_images_are_dropped_before_they_count() -> None:
    gone, late, alive = Image(300, cancelled=True), Image(300, deadline_s=5.0), Image(100)
    plan = plan_batch([gone, late, alive], 5.0, LIMITS)
    assert (plan.batch, plan.expired, plan.cancelled) == ([alive], [late], [gone])


def test_the_oldest_goes_even_if_it_is_over_the_limits() -> None:
    plan = plan_batch([Image(1000), Image(10)], 0.0, LIMITS)
    assert lengths(plan.batch) == [1000]
    assert plan.full


def test_similar_lengths_join_the_oldest() -> None:
    waiting = [Image(100), Image(10), Image(98), Image(11), Image(101)]
    assert sorted(lengths(plan_batch(waiting, 0.0, LIMITS).batch)) == [98, 100, 101]


def test_a_few_dissimilar_images_share_a_run_when_padding_costs_less_than_the_run() -> None:
    waiting = [Image(40), Image(20), Image(60)]
    assert len(plan_batch(waiting, 0.0, BatchLimits(2048, 64, 256)).batch) == 3


def test_equal_images_join_in_order_of_age() -> None:
    waiting = [Image(100, deadline_s=50.0 + age) for age in range(6)]
    plan = plan_batch(waiting, 0.0, LIMITS)
    assert plan.batch == waiting[:4]
    assert plan.full


def test_the_number_of_images_is_bounded() -> None:
    plan = plan_batch([Image(1)] * 20, 0.0, LIMITS)
    assert len(plan.batch) == LIMITS.max_images
    assert plan.full


def test_one_grid_a_batch_where_the_model_needs_it() -> None:
    waiting = [Image(6, (2, 3)), Image(6, (3, 2)), Image(6, (2, 3))]
    plan = plan_batch(waiting, 0.0, BatchLimits(400, 8, 50, mixed_grids=False))
    assert [image.grid for image in plan.batch] == [(2, 3), (2, 3)]


def test_a_batch_that_waits_for_more_of_its_kind_is_not_full() -> None:
    assert not plan_batch([Image(100), Image(100)], 0.0, LIMITS).full


images = st.builds(
    Image,
    length=st.integers(1, 300),
    grid=st.sampled_from([(1, 1), (2, 2)]),
    deadline_s=st.floats(0, 20),
    cancelled=st.booleans(),
)
limits = st.builds(
    BatchLimits,
    max_patches=st.integers(1, 1000),
    max_images=st.integers(1, 10),
    overhead_patches=st.integers(0, 200),
    mixed_grids=st.booleans(),
)


@settings(deadline=None)
@given(st.lists(images, max_size=30), limits)
def test_any_plan_keeps_the_limits(waiting: list[Image], limits: BatchLimits) -> None:
    waiting = [Image(i.length, i.grid, i.deadline_s + n * 1e-9, i.cancelled) for n, i in enumerate(waiting)]
    plan = plan_batch(waiting, 10.0, limits)
    dead = [image for image in waiting if image.cancelled or image.deadline_s <= 10.0]
    living = [image for image in waiting if image not in dead]
    assert sorted(map(id, plan.expired + plan.cancelled)) == sorted(map(id, dead))
    assert len(set(map(id, plan.batch))) == len(plan.batch)
    assert all(any(image is other for other in living) for image in plan.batch)
    if living:
        assert plan.batch[0] is living[0]
    if len(plan.batch) > 1:
        longest = max(lengths(plan.batch))
        assert len(plan.batch) * longest <= limits.max_patches
        assert len(plan.batch) <= limits.max_images
        assert len(plan.batch) * longest - sum(lengths(plan.batch)) <= limits.overhead_patches
        assert limits.mixed_grids or len({image.grid for image in plan.batch}) == 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=30), limits)
def test_everybody_is_served_in_at_most_as_many_batches_as_there_are_images(
    sizes: list[int], limits: BatchLimits
) -> None:
    waiting = [Image(size) for size in sizes]
    batches = 0
    while waiting:
        batch = plan_batch(waiting, 0.0, limits).batch
        waiting = [image for image in waiting if not any(image is other for other in batch)]
        batches += 1
    assert batches <= len(sizes)


def test_with_one_lane_a_second_batch_is_prepared_only_if_it_is_full() -> None:
    turns = [next_turn(Lanes(), running, 5, alone=running > 0) for running in range(3)]
    assert turns == [Turn(alone=True), Turn(alone=True, only_full=True), None]


@pytest.mark.parametrize(
    ("number", "waiting", "turn"),
    [
        (2, 1, Turn(alone=True)),
        (2, 2, Turn(alone=False, max_images=1)),
        (2, 9, Turn(alone=False, max_images=5)),
        (3, 1, Turn(alone=True)),
        (3, 2, Turn(alone=False, max_images=1)),
        (8, 4, Turn(alone=True)),
        (8, 5, Turn(alone=False, max_images=1)),
        (8, 17, Turn(alone=False, max_images=3)),
    ],
)
def test_an_idle_engine_gives_all_cores_to_a_few_images_and_a_lane_each_to_many(
    number: int, waiting: int, turn: Turn
) -> None:
    assert next_turn(Lanes(number), 0, waiting, alone=False) == turn


def test_nothing_runs_beside_a_batch_that_has_all_cores() -> None:
    assert next_turn(Lanes(4), 1, 100, alone=True) is None


def test_beside_a_lane_that_is_busy_even_one_image_takes_a_lane() -> None:
    assert next_turn(Lanes(4), 1, 1, alone=False) == Turn(alone=False, max_images=1)
    assert next_turn(Lanes(4), 2, 7, alone=False) == Turn(alone=False, max_images=4)
    assert next_turn(Lanes(4), 4, 7, alone=False) is None


def test_where_all_cores_are_no_faster_every_batch_takes_a_lane() -> None:
    assert next_turn(Lanes(4, wide=False), 0, 1, alone=False) == Turn(alone=False, max_images=1)


@given(st.integers(2, 64), st.integers(1, 1000))
def test_a_burst_is_spread_evenly_over_all_lanes(number: int, waiting: int) -> None:
    batches: list[int] = []
    while waiting and (turn := next_turn(Lanes(number, wide=False), len(batches), waiting, alone=False)):
        batches.append(min(waiting, turn.max_images or waiting))
        waiting -= batches[-1]
    assert waiting == 0
    assert len(batches) == number or max(batches) == 1
    assert max(batches) - min(batches) <= 1


def sequence(patches: int, fill: int) -> PatchSequence:
    return PatchSequence(np.full((patches, 12), fill, np.uint8), (1, patches), patches * 2, 2, "PNG")


@pytest.mark.parametrize("sizes", [[3], [2, 2], [1, 4, 2]])
def test_assemble_pads_on_the_right(sizes: list[int]) -> None:
    patches, grid = assemble([sequence(size, place + 1) for place, size in enumerate(sizes)])
    assert patches.shape == (len(sizes), max(sizes), 12)
    assert patches.dtype == np.uint8
    assert grid.dtype == np.int64
    assert grid.tolist() == [[1, size] for size in sizes]
    for place, size in enumerate(sizes):
        assert (patches[place, :size] == place + 1).all()
        assert (patches[place, size:] == 0).all()


def test_a_batch_is_filled_in_place_and_the_rows_behind_it_are_images_of_one_patch() -> None:
    patches = np.full((3, 4, 12), 99, np.uint8)
    grid = np.full((3, 2), 77)
    fill([sequence(2, 1), sequence(3, 2)], patches, grid)
    assert grid.tolist() == [[1, 2], [1, 3], [1, 1]]
    assert patches[:, :, 0].tolist() == [[1, 1, 99, 99], [2, 2, 2, 99], [99] * 4]
