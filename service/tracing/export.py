"""The way out for spans: OTLP over HTTP, from a thread of its own. What cannot be delivered is lost, and said so."""

import logging
import os
import time
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from structlog.typing import FilteringBoundLogger

_SENDING = {"opentelemetry.exporter": logging.WARNING, "opentelemetry.sdk._shared_internal": logging.ERROR}
_LOG_EVERY_S = 60.0
_MOST_REASON = 300


def open_processor(log: FilteringBoundLogger) -> SpanProcessor:
    """The exporter of the standard `OTEL_` variables, behind a bounded queue; one that drops all if they say `none`."""
    quiet_sdk(log)
    if os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return SpanProcessor()
    return BatchSpanProcessor(OTLPSpanExporter())


def quiet_sdk(log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic) -> None:
    """Keep what the library logs out of ours, for it quotes headers of clients; but for what is said of sending."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    complaints = _Complaints(log, clock)
    for name, level in _SENDING.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = [complaints]


class _Complaints(logging.Handler):
    """At most one line a minute, with the number of those in between."""

    def __init__(self, log: FilteringBoundLogger, clock: Callable[[], float]) -> None:
        super().__init__()
        self._log = log
        self._clock = clock
        self._unlogged = 0
        self._next_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the thread that exports."""
        self._unlogged += 1
        if self._clock() >= self._next_s:
            reason = record.getMessage()[:_MOST_REASON]
            self._log.warning("traces_not_delivered", reason=reason, complaints=self._unlogged)
            self._next_s, self._unlogged = self._clock() + _LOG_EVERY_S, 0
