from collections.abc import Iterator

import pytest

from service.processes.messages import (
    MAX_DATAGRAM_BYTES,
    Answer,
    Cancellation,
    Kind,
    Lives,
    Record,
    Submission,
    TracedSubmission,
    most_bytes,
    pack_header,
    pack_record,
    unpack,
    unpack_records,
)

RECORDS: list[tuple[Kind, Record]] = [
    (Kind.SUBMISSION, Submission(2**63, 2**62, 7, 14, 15, 3, 12.5)),
    (Kind.TRACED_SUBMISSION, TracedSubmission(1, 2, 7, 14, 15, 3, 12.5, bytes(range(16)), bytes(range(8)))),
    (Kind.CANCELLATION, Cancellation(3)),
    (Kind.ANSWER, Answer(4, 1, 32, 768, 0.25, 0.5)),
]


def records_of(datagram: bytes) -> Iterator[Record]:
    kind, _, body = unpack(datagram)
    return unpack_records(kind, body)


@pytest.mark.parametrize(("kind", "record"), RECORDS)
def test_records_come_back_as_they_were(kind: Kind, record: Record) -> None:
    datagram = pack_header(kind, Lives(2, 9)) + 3 * pack_record(kind, record)
    found, lives, body = unpack(datagram)
    assert (found, lives, list(unpack_records(found, body))) == (kind, Lives(2, 9), [record] * 3)


def test_a_greeting_is_a_header() -> None:
    found, lives, body = unpack(pack_header(Kind.GREETING, Lives(1, 2)))
    assert (found, lives, list(unpack_records(found, body))) == (Kind.GREETING, Lives(1, 2), [])


@pytest.mark.parametrize("kind", [Kind.TEXT, *(kind for kind, _ in RECORDS)])
def test_a_full_datagram_fits(kind: Kind) -> None:
    assert len(pack_header(kind, Lives(0, 0))) + most_bytes(kind) <= MAX_DATAGRAM_BYTES


@pytest.mark.parametrize("datagram", [b"", b"\x01", pack_header(Kind.ANSWER, Lives(0, 0)) + b"x", b"\xff" + bytes(11)])
def test_other_bytes_are_refused(datagram: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of the three reasons each has its own text
        list(records_of(datagram))
