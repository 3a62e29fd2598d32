from collections.abc import Callable, Iterator

import pytest
from two_processes import Service

MakeService = Callable[..., Service]


@pytest.fixture
def make_service() -> Iterator[MakeService]:
    made: list[Service] = []

    def make(http_processes: int = 1, slots: int = 4) -> Service:
        made.append(Service(http_processes, slots))
        return made[-1]

    yield make
    for each in made:
        each.close()
