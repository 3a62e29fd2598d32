"""What HTTP processes and the engine process say to each other: datagrams of fixed records. Pixels are never in them.

A datagram is a header and records of one kind, or a piece of text (`service.processes.documents`). The header names the
life of the engine and of the HTTP process that its sender knew: what belongs to an earlier life, of either, is
recognised and dropped. Pure: bytes in, values out.
"""

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_DATAGRAM_BYTES = 65_536
_HEADER = struct.Struct("<B3xII")
_MOST_RECORDS = 512  # of one datagram, so that the largest kind stays within it
_MOST_TEXT_BYTES = 32_768  # of one datagram


class Kind(enum.IntEnum):
    """What the records of a datagram are."""

    GREETING = 1  # an HTTP process starts; no records
    TEXT = 2  # what is rare: lines, each a document, cut into datagrams anywhere
    SUBMISSION = 3
    CANCELLATION = 4
    ANSWER = 5
    TRACED_SUBMISSION = 6


class Outcome(enum.IntEnum):
    """How an image left the engine process."""

    ANSWERED = 1
    EXPIRED = 2
    FAILED = 3
    DRAINING = 4
    CANCELLED = 5
    OVERLOADED = 6
    REPLACED = 7  # there is no such version of a model any more


class Lives(NamedTuple):
    """How often each side has been started; 0: unknown."""

    engine: int
    http: int


class Submission(NamedTuple):
    """One image for a version of a model. Its patches lie in shared memory.

    Attributes:
        ticket: of the image.
        version: the number of the version; no two versions, of any life of the engine, have the same.
        page: of the shared memory, where the patches begin.
        rows, columns: its grid of patches.
        extras: what is wanted beside the ranking, a number of `service.extras.Extras`.
        deadline_s: on the monotonic clock of the machine.
    """

    ticket: int
    version: int
    page: int
    rows: int
    columns: int
    extras: int
    deadline_s: float


class TracedSubmission(NamedTuple):
    """A `Submission` of a request that has a span; see `service.tracing.references`."""

    ticket: int
    version: int
    page: int
    rows: int
    columns: int
    extras: int
    deadline_s: float
    trace_id: bytes
    span_id: bytes


class Cancellation(NamedTuple):
    """Nobody waits for this ticket any more."""

    ticket: int


class Answer(NamedTuple):
    """The end of one ticket; if the outcome is `ANSWERED`, the ranking and what else was wanted lie behind the patches.

    `features` is the length of an embedding, 0 where none was wanted.
    """

    ticket: int
    outcome: int
    batch_images: int
    features: int
    queue_s: float
    inference_s: float


Record = Submission | TracedSubmission | Cancellation | Answer
_LAYOUTS: dict[Kind, struct.Struct] = {
    Kind.SUBMISSION: struct.Struct("<QQIIIId"),
    Kind.TRACED_SUBMISSION: struct.Struct("<QQIIIId16s8s"),
    Kind.CANCELLATION: struct.Struct("<Q"),
    Kind.ANSWER: struct.Struct("<QIIIdd"),
}
_TYPES: dict[Kind, type[Record]] = {
    Kind.SUBMISSION: Submission,
    Kind.TRACED_SUBMISSION: TracedSubmission,
    Kind.CANCELLATION: Cancellation,
    Kind.ANSWER: Answer,
}


def pack_record(kind: Kind, record: Record) -> bytes:
    """One record as bytes."""
    return _LAYOUTS[kind].pack(*record)


def pack_header(kind: Kind, lives: Lives) -> bytes:
    """The start of a datagram."""
    return _HEADER.pack(kind, *lives)


def most_bytes(kind: Kind) -> int:
    """The most bytes of this kind that one datagram carries."""
    if kind == Kind.TEXT:
        return _MOST_TEXT_BYTES
    return _MOST_RECORDS * _LAYOUTS[kind].size if kind in _LAYOUTS else 0


def unpack(datagram: bytes) -> tuple[Kind, Lives, memoryview]:
    """Kind, lives and the rest of a datagram.

    Raises:
        ValueError: if it is none of ours.
    """
    if len(datagram) < _HEADER.size:
        raise ValueError(f"a datagram of {len(datagram)} bytes has no header")
    number, engine, http = _HEADER.unpack_from(datagram)
    return Kind(number), Lives(engine, http), memoryview(datagram)[_HEADER.size :]


def unpack_records(kind: Kind, body: memoryview) -> Iterator[Record]:
    """The records in the rest of a datagram.

    Raises:
        ValueError: if they are not whole.
    """
    if kind not in _LAYOUTS:
        return iter(())
    layout, record = _LAYOUTS[kind], _TYPES[kind]
    if len(body) % layout.size:
        raise ValueError(f"{len(body)} bytes are no whole number of {kind.name} records")
    return map(record._make, layout.iter_unpack(body))
