import gc
import os
from dataclasses import replace

import numpy as np
import pytest
from ranked import ranking_of
from tiny_artifact import MANIFEST

from service.errors import NoPatchMemoryError
from service.extras import MOST_FEATURES, NOTHING, Found
from service.processes.slab import PatchSlab, SlabMemory

DIM = MANIFEST.preprocessing.patch_dim
SPEC = MANIFEST.preprocessing
SLOT_BYTES = 24_576  # 100 patches of 48 bytes and an answer on whole pages


def slab(slots: int = 3) -> PatchSlab:
    made = PatchSlab(slots * SLOT_BYTES)
    assert made.cut([SPEC]) == slots
    return made


def test_what_is_written_in_one_process_is_read_in_another() -> None:
    memory = slab()
    place = memory.take(4, DIM)
    page = memory.page_of(place)
    if (child := os.fork()) == 0:
        place[:] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert (memory.patches(page, 4, DIM, 4) == 7).all()


def test_slots_do_not_overlap() -> None:
    memory = slab()
    places = [memory.take(100, DIM) for _ in range(3)]
    for value, place in enumerate(places):
        place[:] = value
    assert [int(place.min()) for place in places] == [int(place.max()) for place in places] == [0, 1, 2]
    assert sorted(memory.page_of(place) for place in places) == [0, 6, 12]


def test_a_slot_is_free_when_nobody_holds_its_array() -> None:
    memory = slab(1)
    place = memory.take(10, DIM)
    part = place[2:4]
    with pytest.raises(NoPatchMemoryError):
        memory.take(1, DIM)
    del place
    gc.collect()
    with pytest.raises(NoPatchMemoryError):  # a part of it is still in use
        memory.take(1, DIM)
    del part
    assert memory.take(1, DIM).shape == (1, DIM)


def test_a_ranking_lies_behind_patches() -> None:
    memory = slab()
    place = memory.take(5, 3)
    place[:] = 9
    page = memory.page_of(place)
    memory.write_ranking(page, place.size, ranking_of(2, classes=3))
    assert (place == 9).all()
    ranking = memory.read_ranking(page, place.size, 3)
    memory.write_ranking(page, place.size, ranking_of(0, classes=3))  # the slot went to another image
    assert ranking.indices.tolist() == [2, 3, 4]
    assert ranking.scores.tolist() == [0.5, 0.25, 0.125]


def test_the_largest_image_has_room_for_the_longest_ranking() -> None:
    memory = slab(2)
    places = [memory.take(100, DIM) for _ in range(2)]
    for place in places:
        place[:] = 9
        memory.write_ranking(memory.page_of(place), place.size, ranking_of(21_000, classes=100))
    assert all((place == 9).all() for place in places)
    for place in places:
        ranking = memory.read_ranking(memory.page_of(place), place.size, 100)
        assert ranking.indices.tolist() == [*range(21_000, 21_100)]


def test_what_else_was_wanted_lies_behind_the_ranking_and_no_further() -> None:
    memory = slab(2)
    places = [memory.take(100, DIM) for _ in range(2)]
    for place in places:
        place[:] = 9
    page, size = memory.page_of(places[1]), places[1].size  # the slots lie one after the other
    memory.write_ranking(page, size, ranking_of(3, classes=100))
    draw = np.random.default_rng(0)
    features, shares = draw.random(MOST_FEATURES, np.float32), draw.random(100, np.float32)
    memory.write_found(page, size, Found(features, shares))
    read = memory.read_found(page, size, MOST_FEATURES, 100)
    memory.write_found(page, size, Found(np.zeros(MOST_FEATURES, np.float32)))  # the slot went to another image
    np.testing.assert_array_equal(read.embedding, features)
    np.testing.assert_array_equal(read.attention, shares)
    assert memory.read_ranking(page, size, 100).indices[0] == 3
    assert all((place == 9).all() for place in places)
    assert memory.read_found(page, size, 0, 0) == NOTHING
    with pytest.raises(ValueError, match="no room"):
        memory.write_found(page, size, Found(np.zeros(MOST_FEATURES + 1, np.float32)))


def test_slots_hold_images_of_every_model() -> None:
    wide, long = replace(SPEC, patch_size=16, max_patches=4), replace(SPEC, max_patches=200)
    memory = PatchSlab(10 * 28_672)
    assert memory.cut([wide, SPEC, long]) == 10  # 200 patches of 48 bytes and an answer
    images = [memory.take(4, wide.patch_dim), memory.take(200, DIM)]
    for value, image in enumerate(images):
        image[:] = value
    assert [int(image.max()) for image in images] == [0, 1]


@pytest.mark.parametrize(("page", "patches"), [(18, 1), (13, 100), (-1, 1), (0, 0), (0, 101), (2**31, 1)])
def test_places_outside_are_refused(page: int, patches: int) -> None:
    with pytest.raises(ValueError, match="no room"):
        slab().patches(page, patches, DIM, 100)


def test_a_model_sees_its_own_patches() -> None:
    memory = slab()
    assert SlabMemory(memory, 768).take(4).shape == (4, 768)


def test_the_last_slot_used_is_taken_first() -> None:
    memory = slab()
    first = memory.page_of(memory.take(1, DIM))
    assert memory.page_of(memory.take(1, DIM)) == first
    assert np.array_equal(memory.take(2, DIM).shape, (2, DIM))
