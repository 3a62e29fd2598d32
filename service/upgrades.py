"""Offers to change the protocol, which a server may ignore (RFC 9110, 7.8); this one speaks HTTP/1.1 alone.

The parser takes a request with such an offer for the last of its connection, and for one without a body. So the request
is written down again without the offer, and read once more. Java's client sends one with its first request, whatever
that is.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import httptools

_OFFER = b"upgrade"

Header = tuple[bytes, bytes]  # the name in lower case


def open_parser(callbacks: Any) -> httptools.HttpRequestParser:
    """As uvicorn makes it: what is pipelined behind a request that closes is dropped, and is no error."""
    parser = httptools.HttpRequestParser(callbacks)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def has_offer(headers: Iterable[Header]) -> bool:
    """Whether a request offers another protocol."""
    return any(name == _OFFER for name, _ in headers)


def without_offer(method: bytes, target: bytes, version: str, headers: Iterable[Header]) -> bytes:
    """The lines of a request, up to its body, as they would have been without the offer.

    Args:
        method: of its first line, as the parser has let it through, as are the next two.
        target: its address, or a path.
        version: such as 1.1.
        headers: all of them.
    """
    return b"\r\n".join([b"%b %b HTTP/%b" % (method, target, version.encode()), *_lines(headers), b"", b""])


def _lines(headers: Iterable[Header]) -> Iterator[bytes]:
    return (b"%b: %b" % (name, value) for name, value in headers if name != _OFFER)
