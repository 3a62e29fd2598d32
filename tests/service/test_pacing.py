import pytest

from service.pacing import RefusalPace


def rests(pace: RefusalPace, per_s: int, seconds: float, start_s: float = 100.0) -> list[float]:
    return [pace.rest_s(start_s + number / per_s) for number in range(round(per_s * seconds))]


def test_refusals_at_a_moderate_pace_cost_nobody_any_time() -> None:
    assert set(rests(RefusalPace(), per_s=900, seconds=3)) == {0.0}


def test_a_burst_costs_nobody_any_time() -> None:
    assert {RefusalPace().rest_s(100.0) for _ in range(40)} == {0.0}


def test_in_a_flood_connections_rest_longer_and_longer_but_never_long() -> None:
    pace = RefusalPace()
    flood = [pace.rest_s(100.0) for _ in range(3000)]
    assert flood == sorted(flood)
    assert 0 < flood[100] < 0.1
    assert flood[-1] == pytest.approx(1.0)


def test_connections_that_rest_as_they_are_told_keep_the_pace() -> None:
    """Sixty-four clients that ask again as soon as they are read: what a process then answers is bounded."""
    pace, free_at_s, refused = RefusalPace(), [0.0] * 64, 0
    while (now_s := min(free_at_s)) < 10.0:
        free_at_s[free_at_s.index(now_s)] = now_s + 0.001 + pace.rest_s(now_s)
        refused += 1
    assert 9_000 < refused < 11_000


def test_after_the_flood_the_rest_is_over() -> None:
    pace = RefusalPace()
    rests(pace, per_s=100_000, seconds=0.1)
    assert pace.rest_s(102.0) == 0.0
