"""Ctrl-C and SIGTERM while a data set is classified: the first finishes what is under way, the second does not."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether to stop, and the signal that asked for it."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def asked(self) -> bool:
        """Whether it has come."""
        return self.signal is not None

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Signals of this process come here; from the second on they have their usual effect."""
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print("patchserve: finishing the part under way; once more to stop at once", file=sys.stderr)  # noqa: T201
