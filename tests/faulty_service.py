"""`patchserve serve` with a fault that nothing in it notices, for detectors that look at a service from outside.

    python -c "import sys; sys.path.append('tests'); from faulty_service import main; main()" FAULT MODEL FLAG...

`FAULT` is one of: `none`; `lose`, the connection of every 50th request ends without a reply; `leak`, every request
leaves 200 kB; `swap`, every 50th image gets the names of other classes. All is one process.
"""

import sys
from typing import Any

from service import pipeline
from service.protocol import BoundedProtocol
from service.server import serve
from service.settings import read_settings

_ONE_IN = 50
_LEAK_BYTES = 200_000


class _Counter:
    """Says so at every 50th call."""

    def __init__(self) -> None:
        self._calls = 0

    def due(self) -> bool:
        self._calls += 1
        return self._calls % _ONE_IN == 0


def lose() -> None:
    start, counter = BoundedProtocol._start_asgi_task, _Counter()

    def faulty(protocol: BoundedProtocol, cycle: Any, app: Any) -> None:
        if cycle.scope["method"] == "POST" and counter.due():
            protocol.transport.abort()
        else:
            start(protocol, cycle, app)

    BoundedProtocol._start_asgi_task = faulty  # type: ignore[method-assign]


def leak() -> None:
    start, kept = BoundedProtocol._start_asgi_task, []

    def faulty(protocol: BoundedProtocol, cycle: Any, app: Any) -> None:
        kept.append(b"x" * (_LEAK_BYTES + len(kept)))  # another object each time
        start(protocol, cycle, app)

    BoundedProtocol._start_asgi_task = faulty  # type: ignore[method-assign]


def swap() -> None:
    name, counter = pipeline.name_best, _Counter()

    def faulty(ranking: Any, labels: tuple[str, ...], k: int) -> Any:
        return name(ranking, labels[1:] + labels[:1] if counter.due() else labels, k)

    pipeline.name_best = faulty


def main() -> None:
    fault, *rest = sys.argv[1:]
    {"none": lambda: None, "lose": lose, "leak": leak, "swap": swap}[fault]()
    serve(read_settings([*rest, "--http-workers=1"]))
