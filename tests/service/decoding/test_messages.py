import pytest

from model.headers import ImageHeader
from service.decoding.messages import Ending, Reply, Request, pack_reply, pack_request, unpack_reply, unpack_request


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_request_arrives_as_it_was(name: str) -> None:
    request = Request(10_485_760, ImageHeader(name, 30_000, 1, 8), (14, 3))
    assert unpack_request(pack_request(request)) == request


@pytest.mark.parametrize("reply", [Reply(Ending.DECODED, 0.25), Reply(Ending.INVALID), Reply(Ending.BUG, 0.0, "é")])
def test_a_reply_arrives_as_it_was(reply: Reply) -> None:
    assert unpack_reply(pack_reply(reply)) == reply


def test_the_end_of_a_long_trace_is_kept() -> None:
    trace = unpack_reply(pack_reply(Reply(Ending.BUG, 0.0, "a" * 100_000 + "the error"))).trace
    assert trace.endswith("the error")
    assert len(trace) < 10_000


@pytest.mark.parametrize("datagram", [b"", b"\0", b"\xff" * 9])
def test_what_is_no_reply_is_refused(datagram: bytes) -> None:
    with pytest.raises(ValueError, match=r"reply|Ending"):
        unpack_reply(datagram)
