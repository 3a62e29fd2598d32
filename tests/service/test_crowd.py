from service.crowd import Crowd


def crowd(accepted: int, refused: int) -> Crowd:
    asked = Crowd()
    for _ in range(accepted):
        asked.accept(10.0)
    for _ in range(refused):
        asked.refuse(10.0)
    return asked


def test_more_than_half_must_be_refused() -> None:
    assert crowd(10, 12).is_mostly_refused(10.0)
    assert not crowd(10, 10).is_mostly_refused(10.0)


def test_a_single_one_is_no_crowd() -> None:
    assert not crowd(0, 1).is_mostly_refused(10.0)


def test_what_is_long_past_does_not_count() -> None:
    seen = crowd(0, 100)
    assert seen.is_mostly_refused(11.0)
    seen.accept(12.0)
    assert not seen.is_mostly_refused(15.0)
    for _ in range(3):
        seen.refuse(15.0)
    assert seen.is_mostly_refused(15.0)


def test_a_clock_that_was_not_told_changes_nothing() -> None:
    assert crowd(0, 3).is_mostly_refused(0.0)


def test_a_crowd_is_doubted_after_five_seconds_and_shows_again_at_once() -> None:
    seen = Crowd()
    believed = []
    for hundredth in range(1000, 2000):  # one is accepted and ten are refused each hundredth of a second
        seen.accept(hundredth / 100)
        for _ in range(10):
            seen.refuse(hundredth / 100)
        believed.append(seen.is_mostly_refused(hundredth / 100))
    assert [index for index, yes in enumerate(believed) if not yes] == [500]
