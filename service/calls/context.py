"""The trace that a call belongs to, if the program that calls makes traces."""

import sys


def trace_headers() -> dict[str, str]:
    """The headers of the span that is active in this program, as its propagators write them (`traceparent`).

    In a program that has not imported OpenTelemetry no span is active, and this does not import it.
    """
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry import propagate, trace  # noqa: PLC0415 - see above

    headers: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(headers)
    return headers
