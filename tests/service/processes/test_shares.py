from typing import Any

import pytest

from service.errors import StartError
from service.processes.shares import Share, check_replicas, divide, settings_of
from service.settings import Settings


@pytest.mark.parametrize(
    ("allowed", "usable", "replicas", "cores"),
    [
        ({0, 1}, 2, 2, [(0,), (1,)]),
        ({5, 2, 9, 7}, 4, 2, [(2, 5), (7, 9)]),
        ({0, 1, 2, 3, 4}, 5, 3, [(0,), (1, 2), (3, 4)]),
        ({0, 1, 2, 3}, 2, 2, [(), ()]),  # a quota: the kernel puts them anywhere
    ],
)
def test_cores_are_divided_among_replicas(
    allowed: set[int], usable: int, replicas: int, cores: list[tuple[int, ...]]
) -> None:
    shares = divide(allowed, usable, replicas)
    assert [share.cores for share in shares] == cores
    assert sum(share.threads for share in shares) == usable
    assert min(share.threads for share in shares) >= 1


def test_threads_follow_the_share() -> None:
    settings = settings_of(Settings(replicas=2, max_pixels_in_flight=101), Share((0, 1, 2), 3))
    assert (settings.engine_lanes, settings.engine_threads, settings.decode_threads) == (3, 3, 3)
    assert settings.max_pixels_in_flight == 51


def test_threads_that_are_set_stay() -> None:
    settings = settings_of(Settings(replicas=2, engine_threads=2, decode_threads=5), Share((0, 1, 2), 3))
    assert (settings.engine_lanes, settings.engine_threads, settings.decode_threads) == (1, 2, 5)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"replicas": 5}, "--replicas 5 is more than the 4 cores"),
        ({"replicas": 2, "http_workers": 2}, "--http-workers 2"),
        ({"replicas": 2, "provider": "cuda"}, "--provider cpu"),
        ({"replicas": 2, "engine_lanes": 3}, "--engine-lanes 3"),
        ({"replicas": 2, "engine_threads": 3}, "--engine-threads 3"),
    ],
)
def test_what_replicas_cannot_do_is_one_line(given: dict[str, Any], named: str) -> None:
    with pytest.raises(StartError, match=named) as refused:
        check_replicas(Settings(**given), cores=4)
    assert "\n" not in str(refused.value)


def test_what_replicas_can_do_is_not_refused() -> None:
    check_replicas(Settings(replicas=2, http_workers=1, engine_lanes=2, engine_threads=2), cores=4)
    check_replicas(Settings(replicas=4), cores=4)
