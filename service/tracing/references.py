"""What names a span where it is not at hand: in a queue, and in another process."""

from typing import NamedTuple


class SpanReference(NamedTuple):
    """The span of a sampled request; there is none of others. `trace_id` has 16 bytes, `span_id` 8."""

    trace_id: bytes
    span_id: bytes

    @property
    def trace(self) -> str:
        """The trace as it is written: 32 hexadecimal digits."""
        return self.trace_id.hex()
