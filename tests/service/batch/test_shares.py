import pytest

from service.batch.shares import Shares


def test_neighbours_stay_with_one_engine() -> None:
    shares = Shares(range(10, 20), 2)
    taken = [(shares.take(0), shares.take(1)) for _ in range(5)]
    assert taken == [(10, 15), (11, 16), (12, 17), (13, 18), (14, 19)]
    assert (shares.take(0), shares.take(1)) == (None, None)


def test_who_is_done_takes_from_the_end_of_the_longest() -> None:
    shares = Shares(range(9), 3)
    assert [shares.take(0) for _ in range(4)] == [0, 1, 2, 5]
    assert [shares.take(0) for _ in range(2)] == [8, 4]
    assert [shares.take(1), shares.take(2), shares.take(2), shares.take(0)] == [3, 6, 7, None]


@pytest.mark.parametrize(("parts", "engines"), [(1, 1), (7, 3), (2, 2), (100, 8)])
def test_each_part_is_taken_once_whoever_asks(parts: int, engines: int) -> None:
    shares = Shares(range(parts), engines)
    taken = [shares.take(turn * turn % engines) for turn in range(parts + 3)]
    assert sorted(part for part in taken if part is not None) == list(range(parts))
    assert taken[parts:] == [None] * 3
