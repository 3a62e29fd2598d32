"""The log: one line an event, JSON or for a terminal, on standard error. No text of a client is ever logged."""

import logging
import queue
import sys
import threading
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

    def _lose(self) -> None:
        self.lost += 1
        self._tell(self.lost)

    def write(self, text: str) -> int:
        """Write, or count a loss."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._lose()
            return len(text)

    def flush(self) -> None:
        """Flush, or count a loss."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._lose()


class BackgroundStream(LossyStream):
    """The same, written by a thread: whoever reads the log may stall without stalling the service.

    Args:
        stream: where the text goes.
        tell: as `LossyStream`.
        max_lines: waiting to be written; more are lost, and counted.
    """

    def __init__(self, stream: TextIO, tell: Callable[[int], None] = lambda _: None, max_lines: int = 10_000) -> None:
        super().__init__(stream, tell)
        self._lines: queue.Queue[str | None] = queue.Queue(max_lines)
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Leave the text to the thread, or count a loss."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._lose()
        return len(text)

    def flush(self) -> None:
        """Nothing: the thread flushes."""

    def close(self, timeout_s: float) -> None:
        """Write what waits, for at most `timeout_s` seconds."""
        try:
            self._lines.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _write_all(self) -> None:
        while (text := self._lines.get()) is not None:
            super().write(text)
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
