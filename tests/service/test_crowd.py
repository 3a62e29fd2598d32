import pytest

from service.crowd import Crowd


def crowd(accepted: int, refused: int, seconds: float) -> Crowd:
    """So many of each in every tenth of a second, from 10 s on."""
    asked = Crowd()
    for tenth in range(round(seconds * 10)):
        for _ in range(accepted):
            asked.accept(10.05 + tenth / 10)
        for _ in range(refused):
            asked.refuse(10.05 + tenth / 10)
    return asked


@pytest.mark.parametrize(("accepted", "refused", "mostly"), [(4, 5, True), (4, 4, False), (0, 1, True)])
def test_more_than_half_must_be_refused(accepted: int, refused: int, mostly: bool) -> None:
    assert crowd(accepted, refused, 1.0).is_mostly_refused(11.05) is mostly


def test_a_moment_is_no_crowd() -> None:
    assert not crowd(0, 1000, 0.6).is_mostly_refused(10.59)
    assert crowd(0, 1000, 0.6).is_mostly_refused(10.61)


def test_it_ends_when_fewer_are_refused_or_nobody_comes() -> None:
    seen = crowd(0, 10, 1.0)
    seen.accept(11.05)
    assert seen.is_mostly_refused(11.05)
    assert not seen.is_mostly_refused(11.25)
    assert not crowd(0, 10, 1.0).is_mostly_refused(11.45)


def test_it_is_doubted_after_five_seconds_and_shows_again() -> None:
    seen = Crowd()
    believed = []
    for hundredth in range(1000, 2000):
        seen.refuse(hundredth / 100 + 0.005)
        believed.append(seen.is_mostly_refused(hundredth / 100 + 0.005))
    assert believed == [False] * 60 + [True] * 440 + [False] * 60 + [True] * 440
