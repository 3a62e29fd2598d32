import mmap
from collections.abc import Callable

import pytest

from service.errors import RateLimited
from service.keys import Key, Role, digest_of
from service.rates import Rates


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def key(name: str, rate: str | None) -> Key:
    return Key(name, Role.USER, digest_of(name.encode()), rate)


SHOP, CAMERA, BOSS = key("shop", "3/second"), key("camera", "2/minute"), key("boss", None)


def counted(rates: Rates, who: Key, times: int) -> list[int]:
    """For each of several requests 0, or after how many seconds to come again."""
    answers = []
    for _ in range(times):
        try:
            rates.count(who)
            answers.append(0)
        except RateLimited as error:
            answers.append(error.retry_after_s or -1)
    return answers


def test_a_window_lets_its_number_in_and_the_next_begins_anew() -> None:
    clock = Clock(100.2)
    rates = Rates([SHOP], 1, clock)
    assert counted(rates, SHOP, 5) == [0, 0, 0, 1, 1]
    clock.now_s = 100.999
    assert counted(rates, SHOP, 1) == [1]
    clock.now_s = 101.0
    assert counted(rates, SHOP, 4) == [0, 0, 0, 1]
    clock.now_s = 500.5
    assert counted(rates, SHOP, 4) == [0, 0, 0, 1]


def test_who_comes_back_after_retry_after_is_let_in() -> None:
    clock = Clock(75.5)
    rates = Rates([CAMERA], 1, clock)
    [*_, wait_s] = counted(rates, CAMERA, 3)
    assert wait_s == 45
    clock.now_s += wait_s - 1
    assert counted(rates, CAMERA, 1) == [1]
    clock.now_s += 1
    assert counted(rates, CAMERA, 1) == [0]


def test_one_key_takes_nothing_from_another() -> None:
    rates = Rates([SHOP, CAMERA, BOSS], 1, Clock(0.0))
    assert counted(rates, SHOP, 100)[-1] == 1
    assert counted(rates, CAMERA, 3) == [0, 0, 60]
    assert counted(rates, BOSS, 100) == [0] * 100


def test_all_processes_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = mmap.mmap(-1, 8 * 2)
    monkeypatch.setattr(mmap, "mmap", lambda *_: memory)  # as after a fork: two objects, the same memory
    clock = Clock(10.0)
    first, second = Rates([SHOP], 2, clock), Rates([SHOP], 2, clock)
    second.count_as(1)
    assert counted(first, SHOP, 2) == [0, 0]
    assert counted(second, SHOP, 2) == [0, 1]
    assert counted(first, SHOP, 1) == [1]
    clock.now_s = 11.0
    assert counted(second, SHOP, 3) == [0, 0, 0]
    assert counted(first, SHOP, 1) == [1]


def test_a_flood_in_one_window_never_counts_over_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.rates._MOST", 7)
    clock = Clock(0.0)
    rates = Rates([CAMERA], 1, clock)
    assert counted(rates, CAMERA, 100) == [0, 0] + [60] * 98
    clock.now_s = 60.0
    assert counted(rates, CAMERA, 3) == [0, 0, 60]


@pytest.mark.parametrize(
    "forget", [lambda windows: windows.reset(), lambda windows: windows.clear("LIMITER/shop/3/1/second")]
)
def test_the_storage_keeps_the_contract_of_the_library(forget: Callable[[object], None]) -> None:
    from limits import parse

    rates = Rates([SHOP], 1, Clock(20.25))
    counted(rates, SHOP, 2)
    limiter = rates._limiter
    assert limiter.storage.check()
    assert limiter.test(parse("3/second"), "shop")
    assert limiter.get_window_stats(parse("3/second"), "shop") == (21.0, 1)
    forget(limiter.storage)
    assert limiter.get_window_stats(parse("3/second"), "shop") == (21.0, 3)
