import resource
from collections.abc import Iterator

import pytest

from service.connections import Doorway, places_for_connections
from service.errors import StartError
from service.settings import HttpSettings


class Connection:
    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_places_are_taken_and_given_back() -> None:
    doorway = Doorway(2, spare=1)
    first, second, third = Connection(), Connection(), Connection()
    assert [doorway.enter(each) for each in (first, second, third)] == [True, True, False]
    doorway.leave(first, served=True)
    doorway.leave(third, served=False)
    assert doorway.enter(Connection())
    assert not doorway.enter(Connection())
    assert not second.aborted


def test_of_those_on_top_the_oldest_goes() -> None:
    doorway = Doorway(1, spare=2)
    doorway.enter(Connection())
    crowd = [Connection() for _ in range(5)]
    assert not any(doorway.enter(each) for each in crowd)
    assert [each.aborted for each in crowd] == [True, True, True, False, False]
    doorway.leave(crowd[0], served=False)  # its end is told later
    doorway.leave(crowd[3], served=False)
    doorway.enter(Connection())
    assert not crowd[4].aborted


@pytest.fixture
def _open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_open_files")
def test_the_limit_of_open_files_is_raised_as_far_as_needed() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    assert places_for_connections(HttpSettings(max_connections=500)) == 500
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 500 < soft < 1000


def test_a_hard_limit_bounds_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 300))
    assert 100 < places_for_connections(HttpSettings(max_connections=5000)) < 172
    assert places_for_connections(HttpSettings(max_connections=5)) == 5


def test_a_limit_that_leaves_no_place_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(StartError, match="only 64 files"):
        places_for_connections(HttpSettings())
