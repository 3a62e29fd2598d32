import gc
import os
from dataclasses import replace

import numpy as np
import pytest
from ranked import ranking_of
from tiny_artifact import MANIFEST

from service.errors import NoPatchMemoryError
from service.processes.slab import PatchSlab

DIM = MANIFEST.preprocessing.patch_dim
SLOT_BYTES = 8192  # 100 patches of 48 bytes on whole pages


def slab(slots: int = 3) -> PatchSlab:
    made = PatchSlab(slots * SLOT_BYTES)
    assert made.cut(MANIFEST) == slots
    return made


def test_what_is_written_in_one_process_is_read_in_another() -> None:
    memory = slab()
    place = memory.take(4)
    slot = memory.slot_of(place)
    if (child := os.fork()) == 0:
        place[:] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert (memory.patches(slot, 4) == 7).all()


def test_slots_do_not_overlap() -> None:
    memory = slab()
    places = [memory.take(100) for _ in range(3)]
    for value, place in enumerate(places):
        place[:] = value
    assert [int(place.min()) for place in places] == [int(place.max()) for place in places] == [0, 1, 2]
    assert sorted(memory.slot_of(place) for place in places) == [0, 1, 2]


def test_a_slot_is_free_when_nobody_holds_its_array() -> None:
    memory = slab(1)
    place = memory.take(10)
    part = place[2:4]
    with pytest.raises(NoPatchMemoryError):
        memory.take(1)
    del place
    gc.collect()
    with pytest.raises(NoPatchMemoryError):  # a part of it is still in use
        memory.take(1)
    del part
    assert memory.take(1).shape == (1, DIM)


def test_a_ranking_takes_the_place_of_patches() -> None:
    memory = slab()
    slot = memory.slot_of(memory.take(4))
    memory.write_ranking(slot, ranking_of(2, classes=3))
    ranking = memory.read_ranking(slot)
    memory.patches(slot, 4)[:] = 0  # the slot goes to another image
    assert ranking.indices.tolist() == [2, 3, 4]
    assert ranking.scores.tolist() == [0.5, 0.25, 0.125]


def test_many_classes_make_no_larger_slots() -> None:
    many = replace(MANIFEST, labels=tuple(str(number) for number in range(21_843)))
    memory = PatchSlab(3 * SLOT_BYTES)
    assert memory.cut(many) == 3
    memory.write_ranking(2, ranking_of(21_000, classes=100))
    assert memory.read_ranking(2).indices.tolist() == [*range(21_000, 21_100)]


@pytest.mark.parametrize(("slot", "patches"), [(3, 1), (-1, 1), (0, 0), (0, 171), (2**31, 1)])
def test_places_outside_are_refused(slot: int, patches: int) -> None:
    with pytest.raises(ValueError, match="no room"):
        slab().patches(slot, patches)


def test_the_last_slot_used_is_taken_first() -> None:
    memory = slab()
    first = memory.slot_of(memory.take(1))
    assert memory.slot_of(memory.take(1)) == first
    assert np.array_equal(memory.take(2).shape, (2, DIM))
