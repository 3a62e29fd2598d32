"""The log: one line an event, JSON or for a terminal, on standard error. No text of a client is ever logged."""

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO, cast

import structlog
from pydantic_core import to_json

from service.settings import LogSettings


class LossyStream:
    """A text stream whose failures are counted instead of raised: a full disk must not fail requests.

    Args:
        stream: where the text goes.
        tell: called with the number of losses so far, at each loss, in the thread that writes.
    """

    def __init__(self, stream: TextIO, tell: Callable[[int], None] = lambda _: None) -> None:
        self._stream = stream
        self._tell = tell
        self.lost = 0

    def _lose(self, lines: int = 1) -> None:
        self.lost += lines
        self._tell(self.lost)

    def write(self, text: str) -> int:
        """Write, or count a loss."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._lose(text.count("\n") or 1)
            return len(text)

    def flush(self) -> None:
        """Flush, or count a loss."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._lose()


class BackgroundStream(LossyStream):
    """The same, written by a thread: whoever reads the log may stall without stalling the service.

    The thread gathers lines for a moment and writes them together: woken for each, it would take the interpreter from
    the event loop once a request. What a killed process had not written yet is lost.

    Args:
        stream: where the text goes.
        tell: as `LossyStream`.
        max_lines: waiting to be written; more are lost, and counted.
        gather_s: from the first line that waits to the write, seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        tell: Callable[[int], None] = lambda _: None,
        max_lines: int = 10_000,
        gather_s: float = 0.02,
    ) -> None:
        super().__init__(stream, tell)
        self._max_lines = max_lines
        self._gather_s = gather_s
        self._lines: deque[str] = deque()
        self._waiting = threading.Event()  # set while there are lines, or the end has come
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Leave the text to the thread, or count a loss."""
        if len(self._lines) >= self._max_lines:
            self._lose()
            return len(text)
        self._lines.append(text)
        if not self._waiting.is_set():
            self._waiting.set()
        return len(text)

    def flush(self) -> None:
        """Nothing: the thread flushes."""

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most `timeout_s` seconds."""
        self._closing.set()
        self._waiting.set()
        self._thread.join(timeout_s)

    def _write_all(self) -> None:
        while not self._closing.is_set():
            self._waiting.wait()
            self._closing.wait(self._gather_s)
            self._waiting.clear()  # before the lines are taken: one that comes meanwhile sets it again
            self._write_lines()
        self._write_lines()

    def _write_lines(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            super().write("".join(lines))
            super().flush()


def open_log(settings: LogSettings, stream: LossyStream, *, is_terminal: bool) -> structlog.typing.FilteringBoundLogger:
    """A logger of our own; nothing global is configured.

    Args:
        settings: format and level.
        stream: where lines go.
        is_terminal: what `auto` goes by.
    """
    console = settings.log_format == "console" or (settings.log_format == "auto" and is_terminal)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=is_terminal) if console else structlog.processors.JSONRenderer(_to_json)
    )
    processors = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([] if console else [structlog.processors.format_exc_info]),
        renderer,
    ]
    logger = structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", stream)),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
    )
    return cast("structlog.typing.FilteringBoundLogger", logger.bind())  # unbound, every line would bind it anew


def _to_json(event: Any, default: Callable[[Any], Any]) -> str:
    """A line a request: three times as fast as `json.dumps`."""
    return to_json(event, fallback=default).decode()


def quiet_libraries() -> None:
    """Server and parser libraries log what clients send; our own lines say what is needed."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "python_multipart", "asyncio", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def standard_error() -> LossyStream:
    """Standard error as a stream that never raises."""
    return LossyStream(sys.stderr)
