"""Class A of the catalogue: HTTP framing. What one parser may read otherwise than another is refused."""

import gzip
import json

import pytest

from .live import CLOSE, GET, HOST, MARKER, POST, RAW, RED, Live

LENGTH = b"Content-Length: %d\r\n" % len(RED)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CONTINUE = b"Expect: 100-continue\r\n"
SMUGGLED = b"GET /models HTTP/1.1\r\n" + HOST + b"\r\n"


def chunk(body: bytes, size: bytes | None = None, end: bytes = b"\r\n") -> bytes:
    return (b"%x" % len(body) if size is None else size) + b"\r\n" + body + end


def whole(head: bytes) -> bytes:
    """A POST with these framing headers and a body that fits a length as well as chunks could."""
    return RAW + head + b"\r\n" + RED


def in_chunks(encoded: bytes) -> bytes:
    return RAW + CHUNKED + CLOSE + b"\r\n" + encoded


BAD = {
    # Two ways to say where the body ends.
    "A1 length and chunked": whole(LENGTH + CHUNKED),
    "A1 chunked and length": whole(CHUNKED + LENGTH),
    "A1 length 0 and chunked": RAW + b"Content-Length: 0\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "A1 both in HTTP 1.0": whole(LENGTH + CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "A1 both, in odd case": whole(b"cOnTeNt-LeNgTh: 5\r\ntRaNsFeR-eNcOdInG: ChUnKeD\r\n"),
    "A2 two lengths": whole(LENGTH + b"Content-Length: 5\r\n"),
    "A2 two equal lengths": whole(LENGTH + LENGTH),
    "A2 length 5, 5": RAW + b"Content-Length: 5, 5\r\n\r\nhello",
    "A2 length +5": RAW + b"Content-Length: +5\r\n\r\nhello",
    "A2 length -1": RAW + b"Content-Length: -1\r\n\r\nhello",
    "A2 length 0x5": RAW + b"Content-Length: 0x5\r\n\r\nhello",
    "A2 length 5 5": RAW + b"Content-Length: 5 5\r\n\r\nhello",
    "A2 length 5_0": RAW + b"Content-Length: 5_0\r\n\r\nhello",
    "A2 length 5.0": RAW + b"Content-Length: 5.0\r\n\r\nhello",
    "A2 length in quotes": RAW + b'Content-Length: "5"\r\n\r\nhello',
    "A2 length empty": RAW + b"Content-Length: \r\n\r\nhello",
    "A2 length of 2^64": RAW + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "A2 length of 400 digits": RAW + b"Content-Length: " + b"9" * 400 + b"\r\n\r\nhello",
    "A2 length in Arabic digits": RAW + "Content-Length: \u0665\r\n\r\nhello".encode(),
    "A2 length with a parameter": RAW + b"Content-Length: 5;a=b\r\n\r\nhello",
    "A2 length after a vertical tab": RAW + b"Content-Length: \x0b5\r\n\r\nhello",
    "A2 length in full-width digits": RAW + "Content-Length: \uff15\r\n\r\nhello".encode(),
    "A2 lengths 0 and 5 around another header": RAW + b"Content-Length: 0\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello",
    "A2 length and a space before the colon": RAW + b"Content-Length : 5\r\n\r\nhello",
    "A3 xchunked": RAW + b"Transfer-Encoding: xchunked\r\n\r\n" + chunk(RED),
    "A3 chunked, identity": RAW + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunk(RED),
    "A3 chunked, gzip": RAW + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + chunk(RED),
    "A3 chunked twice": RAW + CHUNKED + CHUNKED + b"\r\n" + chunk(RED) + b"0\r\n\r\n",
    "A3 chunked, chunked": RAW + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + chunk(RED) + b"0\r\n\r\n",
    "A3 chunked, then gzip in another header": RAW + CHUNKED + b"Transfer-Encoding: gzip\r\n\r\n" + chunk(RED),
    "A3 tab before the colon": RAW + b"Transfer-Encoding\t: chunked\r\n\r\n" + chunk(RED),
    "A3 full-width letters": RAW + "Transfer-Encoding: \uff43hunked\r\n\r\n".encode() + chunk(RED),
    "A3 identity": RAW + b"Transfer-Encoding: identity\r\n\r\n" + RED,
    "A3 space before the colon": RAW + b"Transfer-Encoding : chunked\r\n\r\n" + chunk(RED),
    "A3 space before the name": GET + b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "A3 vertical tab": RAW + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + chunk(RED),
    "A3 line feed in the name": RAW + b"Transfer\n-Encoding: chunked\r\n\r\n" + chunk(RED),
    "A3 NUL after chunked": RAW + b"Transfer-Encoding: chunked\0\r\n\r\n" + chunk(RED),
    "A3 folded": RAW + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + chunk(RED),
    "A3 quoted": RAW + b'Transfer-Encoding: "chunked"\r\n\r\n' + chunk(RED),
    "A3 empty": RAW + b"Transfer-Encoding: \r\n\r\n" + chunk(RED),
    "A3 with a parameter": RAW + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + chunk(RED),
    "A3 chunked in HTTP 1.0, and length": whole(CHUNKED + LENGTH).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "A4 bare line feeds": GET.replace(b"\r\n", b"\n") + b"\n",
    "A4 one bare line feed": GET + b"X-A: b\n\r\n",
    "A4 bare carriage return": GET + b"X-A: a\rX-B: b\r\n\r\n",
    "A4 folded header": GET + b"X-A: one\r\n two\r\n\r\n",
    "A4 folded with a tab": GET + b"X-A: one\r\n\ttwo\r\n\r\n",
    "A4 NUL in a value": GET + b"X-A: a\0b\r\n\r\n",
    "A4 NUL in a name": GET + b"X\0A: b\r\n\r\n",
    "A4 control character in a value": GET + b"X-A: a\x07b\r\n\r\n",
    "A4 DEL in a value": GET + b"X-A: a\x7fb\r\n\r\n",
    "A4 header without a colon": GET + b"X-A\r\n\r\n",
    "A4 header without a name": GET + b": b\r\n\r\n",
    "A4 header in brackets": GET + b"X(A): b\r\n\r\n",
    "A4 no UTF-8 in a name": GET + b"X\xff: b\r\n\r\n",
    "A5 no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "A5 two Hosts": GET + HOST + b"\r\n",
    "A5 two different Hosts": GET + b"Host: evil\r\n\r\n",
    "A5 a Host with a path": b"GET /livez HTTP/1.1\r\nHost: t/evil\r\n\r\n",
    "A5 a Host with a name in front": b"GET /livez HTTP/1.1\r\nHost: user@t\r\n\r\n",
    "A5 a Host with a space": b"GET /livez HTTP/1.1\r\nHost: t evil\r\n\r\n",
    "A5 a Host with a bad port": b"GET /livez HTTP/1.1\r\nHost: t:80a\r\n\r\n",
    "A5 two Hosts in one": b"GET /livez HTTP/1.1\r\nHost: t, evil\r\n\r\n".replace(b", ", b",\t"),
    "A5 no Host in HTTP 1.1 with an absolute target": b"GET http://t/livez HTTP/1.1\r\n\r\n",
    "A5 a Host with half an address": b"GET /livez HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "A5 a Host with a line of another": b"GET /livez HTTP/1.1\r\nHost: t\rX: y\r\n\r\n",
    "A6 size in full-width digits": in_chunks("\uff15\r\nhello\r\n0\r\n\r\n".encode()),
    "A6 size with a NUL": in_chunks(b"5\0\r\nhello\r\n0\r\n\r\n"),
    "A6 a request in place of a chunk": in_chunks(chunk(RED) + SMUGGLED),
    "A6 size zz": in_chunks(b"zz\r\nhello\r\n0\r\n\r\n"),
    "A6 size with a sign": in_chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "A6 negative size": in_chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
    "A6 size with 0x": in_chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "A6 size with a space in front": in_chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
    "A6 size with an underscore": in_chunks(b"0_5\r\nhello\r\n0\r\n\r\n"),
    "A6 no size": in_chunks(b"\r\nhello\r\n0\r\n\r\n"),
    "A6 size over 2^64": in_chunks(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "A6 size ended by a line feed": in_chunks(b"5\nhello\r\n0\r\n\r\n"),
    "A6 size ended by a carriage return": in_chunks(b"5\rhello\r\n0\r\n\r\n"),
    "A6 chunk longer than its size": in_chunks(b"5\r\nhello, world\r\n0\r\n\r\n"),
    "A6 chunk ended by a line feed": in_chunks(b"5\r\nhello\n0\r\n\r\n"),
    "A6 no end of the chunk": in_chunks(b"5\r\nhello0\r\n\r\n"),
    "A6 extension with a NUL": in_chunks(b"5;a=\0b\r\nhello\r\n0\r\n\r\n"),
    "A6 extension with a line feed": in_chunks(b"5;a=\nb\r\nhello\r\n0\r\n\r\n"),
    "A6 a length in the trailers": in_chunks(chunk(RED) + b"0\r\nContent-Length: 5\r\n\r\n"),
    "A6 an encoding in the trailers": in_chunks(chunk(RED) + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "A6 broken trailer": in_chunks(chunk(RED) + b"0\r\nno trailer\r\n\r\n"),
    "A7 lower-case method": GET.replace(b"GET", b"get") + b"\r\n",
    "A7 unknown method": GET.replace(b"GET", b"HACK") + b"\r\n",
    "A7 no version": b"GET /livez\r\n\r\n",
    "A7 HTTP/0.9": b"GET /livez HTTP/0.9\r\n" + HOST + b"\r\n",
    "A7 HTTP/1.2": b"GET /livez HTTP/1.2\r\n" + HOST + b"\r\n",
    "A7 HTTP/3.0": b"GET /livez HTTP/3.0\r\n" + HOST + b"\r\n",
    "A7 HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "A7 lower-case version": b"GET /livez http/1.1\r\n" + HOST + b"\r\n",
    "A7 a tab": b"GET\t/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "A7 something after the version": b"GET /livez HTTP/1.1 x\r\n" + HOST + b"\r\n",
    "A7 no slash": b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "A7 text": b"this is no HTTP, " + MARKER + b"\r\n\r\n",
    "A7 TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "A7 PROXY, version 1": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + GET + b"\r\n",
    "A7 PROXY, version 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + GET + b"\r\n",
    "A7 SOCKS": b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01\0\x50" + GET + b"\r\n",
    "A7 SMTP": b"EHLO sesame\r\nMAIL FROM:<sesame>\r\n\r\n",
    "A7 a reply": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "A7 a byte-order mark": b"\xef\xbb\xbf" + GET + b"\r\n",
    "A7 zeros": b"\0" * 500,
    "A7 SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "A16 non-ASCII path": "GET /livéz HTTP/1.1\r\nHost: t\r\n\r\n".encode(),
    "A16 control character in the path": b"GET /li\x01vez HTTP/1.1\r\n" + HOST + b"\r\n",
    "A16 CONNECT": b"CONNECT evil:443 HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_bad_framing(live: Live, message: bytes) -> None:
    """400, once, and closed; what follows in the same bytes never becomes a request."""
    (reply,) = live.say(message, wait_s=3)
    assert reply.code == "bad_request"
    assert reply.headers["connection"] == "close"


GOOD = {
    "A2 leading zeros": RAW + CLOSE + b"Content-Length: 00%d\r\n\r\n" % len(RED) + RED,
    "A2 spaces around": RAW + CLOSE + b"Content-Length:   %d  \r\n\r\n" % len(RED) + RED,
    "A5 Host with a port": b"GET /livez HTTP/1.1\r\nHost: t:8000\r\n" + CLOSE + b"\r\n",
    "A5 Host is an IPv6 address": b"GET /livez HTTP/1.1\r\nHost: [::1]:80\r\n" + CLOSE + b"\r\n",
    "A5 Host empty": b"GET /livez HTTP/1.1\r\nHost:\r\n" + CLOSE + b"\r\n",
    "A5 Host elsewhere": b"GET http://evil/livez HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
    "A5 HTTP 1.0 without Host": b"GET /livez HTTP/1.0\r\n\r\n",
    "A6 one byte a chunk": in_chunks(b"".join(chunk(bytes([each])) for each in RED) + b"0\r\n\r\n"),
    "A6 size with leading zeros": in_chunks(chunk(RED, b"%016x" % len(RED)) + b"0\r\n\r\n"),
    "A6 size in upper case": in_chunks(chunk(RED, b"%X" % len(RED)) + b"0\r\n\r\n"),
    "A6 extension": in_chunks(chunk(RED, b'%x;a=b;c="d"' % len(RED)) + b"0\r\n\r\n"),
    "A6 last chunk of many zeros": in_chunks(chunk(RED) + b"0000000\r\n\r\n"),
    "A6 trailers": in_chunks(chunk(RED) + b"0\r\nX-Request-ID: sesame\r\nHost: evil\r\n\r\n"),
    "A6 trailers about the connection": in_chunks(
        chunk(RED) + b"0\r\nContent-Type: x/y\r\nConnection: keep-alive\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n\r\n"
    ),
    "A7 empty lines in front": b"\r\n\r\n" + GET + CLOSE + b"\r\n",
    "A9 100-continue": RAW + LENGTH + CLOSE + b"Expect: 100-continue\r\n\r\n" + RED,
    "A9 100-continue in capitals": RAW + LENGTH + CLOSE + b"EXPECT: 100-CONTINUE\r\n\r\n" + RED,
    "A9 100-continue twice": RAW + LENGTH + CLOSE + CONTINUE + CONTINUE + b"\r\n" + RED,
    "A9 100-continue without a body": GET + CLOSE + CONTINUE + b"\r\n",
    "A9 100-continue and chunks": in_chunks(chunk(RED) + b"0\r\n\r\n").replace(CLOSE, CLOSE + CONTINUE),
    "A9 another expectation": RAW + LENGTH + CLOSE + b"Expect: sesame\r\n\r\n" + RED,
    "A17 forged addresses": GET
    + CLOSE
    + b"X-Forwarded-For: sesame\r\nForwarded: for=sesame\r\nX-Real-IP: sesame\r\nX-Forwarded-Host: sesame\r\n\r\n",
    "A17 ranges": b"GET /models HTTP/1.1\r\n" + HOST + CLOSE + b"Range: bytes=" + b"0-,"  * 500 + b"0-\r\n\r\n",
    "A17 method override": RAW + LENGTH + CLOSE + b"X-HTTP-Method-Override: DELETE\r\n\r\n" + RED,
    "A17 upgrade": GET + b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    "A17 upgrade to HTTP/2": GET + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    "A17 underscores": RAW + LENGTH + CLOSE + b"Transfer_Encoding: chunked\r\nContent_Length: 5\r\n\r\n" + RED,
    "A17 hop by hop": RAW + LENGTH + b"Connection: close, Content-Length, Host, Content-Type\r\n\r\n" + RED,
    "A17 close and keep alive": RAW + LENGTH + b"Connection: keep-alive, close\r\n\r\n" + RED,
    "A17 Connection of commas": RAW + LENGTH + b"Connection: ,,,\r\nConnection: ,close\r\n\r\n" + RED,
    "A17 a rewritten address": GET + CLOSE + b"X-Original-URL: /sesame\r\nX-Rewrite-URL: /sesame\r\n\r\n",
    "A17 conditions": GET + CLOSE + b"If-None-Match: *\r\nIf-Modified-Since: sesame\r\nIf-Range: sesame\r\n\r\n",
    "A17 three request ids": GET + CLOSE + b"X-Request-ID: a\r\n" + b"X-Request-ID: sesame\r\n" * 2 + b"\r\n",
    "A17 TE": GET + CLOSE + b"TE: trailers, sesame;q=1\r\n\r\n",
    "A17 request id of a client": GET + CLOSE + b"X-Request-ID: <script>sesame\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("message", GOOD.values(), ids=GOOD)
def test_odd_but_right(live: Live, message: bytes) -> None:
    (reply,) = live.say(message, wait_s=3)
    assert reply.code == "ok"
    assert MARKER not in b"".join(value.encode() for value in reply.headers.values())
    assert "content-range" not in reply.headers


def test_a6_an_extension_without_end(live: Live) -> None:
    """100 kB of it: read and dropped, or refused, but bounded and never an error of ours."""
    (reply,) = live.say(in_chunks(b"%x;a=" % len(RED) + b"b" * 100_000 + b"\r\n" + RED + b"\r\n0\r\n\r\n"))
    assert reply.code in {"ok", "bad_request"}


def test_a6_a_size_without_end(live: Live) -> None:
    (reply,) = live.say(in_chunks(b"0" * 100_000), wait_s=3)
    assert reply.code in {"bad_request", "upload_timeout"}


@pytest.mark.parametrize(
    ("head", "piece", "times"),
    [
        (RAW + CHUNKED + b"\r\n", chunk(b"x" * 500_000), 40),
        (RAW + b"Content-Length: 20000000\r\n\r\n", b"x" * 500_000, 40),
        (RAW + CLOSE + b"Content-Length: 20000000\r\n\r\n", b"x" * 500_000, 40),
        (POST + b"Content-Type: multipart/form-data; boundary=b\r\n" + CHUNKED + b"\r\n", chunk(b"x" * 500_000), 40),
    ],
    ids=["A8 chunked", "A8 declared", "A8 declared, close", "A8 multipart, no part"],
)
def test_a_body_over_the_cap(live: Live, head: bytes, piece: bytes, times: int) -> None:
    """The client can read why, although it is still sending."""
    (reply,) = live.say(head, *[piece] * times)
    assert reply.code == ("bad_multipart" if b"multipart" in head else "body_too_large")


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["A9 plain", "A9 expecting"])
def test_a_huge_declaration(live: Live, expect: bytes) -> None:
    with live.connect() as conversation:
        conversation.send(RAW + b"Content-Length: 99999999999\r\n" + expect + b"\r\n")
        assert b"100 Continue" not in conversation.reply()
    assert [reply.code for reply in live.replies()] == ["body_too_large"]


def test_a9_no_100_continue_for_http_1_0(live: Live) -> None:
    """Such a client would take it for the reply."""
    with live.connect() as conversation:
        conversation.send((RAW + LENGTH + CONTINUE + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0") + RED)
        assert conversation.reply().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [0, 1, len(RED) - 1], ids=["A11 nothing", "A11 one byte", "A11 all but one"])
def test_a_body_shorter_than_declared(live: Live, sent: int) -> None:
    with live.connect() as conversation:
        conversation.send(RAW + LENGTH + b"\r\n" + RED[:sent])
    live.expect_unanswered(client_closed=1)


@pytest.mark.parametrize(
    ("tail", "codes"),
    [
        (b"trailing garbage\r\n\r\n", ["ok", "bad_request"]),
        (SMUGGLED.replace(HOST, HOST + CLOSE), ["ok", "ok"]),
        (b"GET /models HTTP/1.1\r\n\r\n", ["ok", "bad_request"]),
        (b"\0" * 100, ["ok", "bad_request"]),
    ],
    ids=["A12 garbage", "A12 a request", "A12 a request without Host", "A12 zeros"],
)
def test_what_follows_a_body(live: Live, tail: bytes, codes: list[str]) -> None:
    """It is a request of its own, or nothing."""
    assert [reply.code for reply in live.say(RAW + LENGTH + b"\r\n" + RED + tail, wait_s=3)] == codes


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (GET + b"X-A: " + b"a" * 10_000_000 + b"\r\n\r\n", "headers_too_large"),
        (GET + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n", "headers_too_large"),
        (GET + b"X-A" + b"a" * 40_000 + b": b\r\n\r\n", "headers_too_large"),
        (GET + b"X-A: b\r\n" * 100_000 + b"\r\n", "headers_too_large"),
        (GET + b"X-A: b\r\n" * 64 + b"\r\n", "headers_too_large"),
        (b"\r\n" * 4_500_000 + GET + b"\r\n", "headers_too_large"),
        (GET + b"Cookie: " + b"a" * 3_000 + b"\r\n" + b"X-A: " + b"b" * 30_000 + b"\r\n\r\n", "headers_too_large"),
        (b"GET /" + b"a" * 5_000_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "address_too_long"),
        (b"GET /?" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "address_too_long"),
        (b"GET /" + b"a/" * 4_000 + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", "not_found"),
        (in_chunks(chunk(RED) + b"0\r\n" + b"X-A: b\r\n" * 100_000 + b"\r\n"), "ok|bad_request"),
    ],
    ids=[
        "A13 a header of 10 MB",
        "A13 a header of 40 kB",
        "A13 a name of 40 kB",
        "A13 100,000 headers",
        "A13 one header too many",
        "A13 9 MB of empty lines",
        "A13 33 kB in two",
        "A13 an address of 5 MB",
        "A13 a query of 9 kB",
        "A13 4,000 folders",
        "A13 100,000 trailers",
    ],
)
def test_header_block(live: Live, message: bytes, code: str) -> None:
    (reply,) = live.say(message)
    assert reply.code in code.split("|")


def test_a15_pipelined(live: Live) -> None:
    names = [b"a1", b"b2", b"c3", b"d4"]
    requests = [RAW + LENGTH + b"X-Request-ID: " + name + b"\r\n\r\n" + RED for name in names]
    replies = live.say(*requests[:-1], requests[-1].replace(HOST, HOST + CLOSE))
    assert [(reply.code, reply.headers["x-request-id"].encode()) for reply in replies] == [
        ("ok", name) for name in names
    ]


def test_a15_pipelined_methods(live: Live) -> None:
    requests = [
        GET + b"\r\n",
        b"OPTIONS /classify HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + RED,
        RAW + CHUNKED + b"\r\n" + chunk(RED) + b"0\r\n\r\n",
        b"DELETE /none HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
    ]
    replies = live.say(b"".join(requests))
    assert [reply.code for reply in replies] == ["ok", "method_not_allowed", "ok", "not_found"]


OFFERS = {
    "A17 HTTP/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "A17 a web socket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "A17 TLS": b"Connection: keep-alive, upgrade\r\nUpgrade: TLS/1.2\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_after_an_offer_of_another_protocol(live: Live, offer: bytes) -> None:
    """Java's client offers HTTP/2 with the first request of a connection, and goes on in HTTP/1.1 if nobody wants."""
    request, last = RAW + LENGTH + offer + b"\r\n" + RED, GET + CLOSE + b"\r\n"
    assert [reply.code for reply in live.say(request * 3 + last, wait_s=3)] == ["ok"] * 4
    with live.connect() as conversation:
        for _ in range(2):
            conversation.send(GET + offer + b"\r\n")
            conversation.reply()
        conversation.send(GET + offer + b"X-A\r\n\r\n")
        conversation.reply()
    assert [reply.code for reply in live.replies()][4:] == ["ok", "ok", "bad_request"]


@pytest.mark.parametrize(
    "request_bytes", [GET + b"\r\n", RAW + LENGTH + b"\r\n" + RED], ids=["A15 ten thousand", "A15 two thousand POSTs"]
)
def test_pipelined_beyond_measure(live: Live, request_bytes: bytes) -> None:
    """Those that may wait are answered, the next is refused, and the rest is never looked at."""
    count = min(10_000, 1_000_000 // len(request_bytes))
    replies = live.say(request_bytes * count)
    assert [reply.code for reply in replies[:-1]] == ["ok"] * (len(replies) - 1)
    assert replies[-1].code == "overloaded"
    assert len(replies) < 400


TARGETS = {
    "A16 GET": (b"GET /classify", "method_not_allowed"),
    "A16 OPTIONS": (b"OPTIONS /classify", "method_not_allowed"),
    "A16 TRACE": (b"TRACE /classify", "method_not_allowed"),
    "A16 DELETE": (b"DELETE /classify", "method_not_allowed"),
    "A16 PROPFIND": (b"PROPFIND /classify", "method_not_allowed"),
    "A16 POST of a page": (b"POST /", "method_not_allowed"),
    "A16 OPTIONS *": (b"OPTIONS *", "not_found"),
    "A16 parent folders": (b"GET /../../etc/passwd", "not_found"),
    "A16 parent folders, encoded": (b"GET /%2e%2e/%2e%2e/etc/passwd", "not_found"),
    "A16 two slashes": (b"GET //livez", "not_found"),
    "A16 slash at the end": (b"GET /livez/", "not_found"),
    "A16 NUL": (b"GET /livez%00", "not_found"),
    "A16 no UTF-8": (b"GET /%ff%fe", "not_found"),
    "A16 percent alone": (b"GET /%", "not_found"),
    "A16 line end": (b"GET /livez%0d%0aX-Injected:%20sesame", "not_found"),
    "A16 absolute, with a name": (b"GET http://sesame:x@t/livez", "ok"),
    "A16 absolute, no host": (b"GET http:///livez", "bad_request"),
    "A16 absolute, no path": (b"GET http://t", "bad_request"),
    "A16 absolute, a port too high": (b"GET http://t:99999/livez", "bad_request"),
    "A16 absolute, half an address": (b"GET http://[::1/livez", "bad_request"),
    "A16 absolute, another scheme": (b"GET h1://t/livez", "bad_request"),
    "A16 host and port": (b"GET t:443", "bad_request"),
    "A16 question mark alone": (b"GET ?", "bad_request"),
    "A16 matrix": (b"GET /livez;a=b", "not_found"),
    "A16 git": (b"GET /.git/config", "not_found"),
    "A16 environment": (b"GET /.env", "not_found"),
    "A16 the stock documents": (b"GET /redoc", "not_found"),
    "A16 encoded letter": (b"GET /%6civez", "ok"),
    "A16 fragment": (b"GET /livez#sesame", "ok|bad_request"),
    "A16 query": (b"GET /livez?sesame", "ok"),
}  # fmt: skip


@pytest.mark.parametrize(("target", "code"), TARGETS.values(), ids=TARGETS)
def test_target(live: Live, target: bytes, code: str) -> None:
    (reply,) = live.say(target + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert reply.code in code.split("|")


AFTER = {
    "A15 after 404": (b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n", "not_found"),
    "A15 after 405": (b"GET /classify HTTP/1.1\r\n" + HOST + b"\r\n", "method_not_allowed"),
    "A15 after 415": (POST + b"Content-Type: a/b\r\nContent-Length: 7\r\n\r\n<script", "unsupported_media_type"),
    "A15 after 422": (RAW + b"Content-Length: 20\r\n\r\n" + b"\x89PNG\r\n\x1a\n" + bytes(12), "invalid_image"),
    "A15 after a bad parameter": (RAW.replace(b"ify", b"ify?k=0") + LENGTH + b"\r\n" + RED, "invalid_parameter"),
    "A15 after a body nobody wants": (GET + LENGTH + b"\r\n" + RED, "ok"),
}  # fmt: skip


@pytest.mark.parametrize(("first", "code"), AFTER.values(), ids=AFTER)
def test_after_a_refusal(live: Live, first: bytes, code: str) -> None:
    """What was pipelined behind a request that is refused for what it says is answered; its body is not a request."""
    codes = [reply.code for reply in live.say(first + RAW + LENGTH + CLOSE + b"\r\n" + RED)]
    assert codes == [code, "ok"]


def test_a16_head(live: Live) -> None:
    """The headers of the refusal, without its body."""
    received = live.service.say(b"HEAD /classify HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert received.startswith(b"HTTP/1.1 405 ")
    assert received.endswith(b"\r\n\r\n")
    live.expect_unanswered(method_not_allowed=1)


@pytest.mark.parametrize(
    "header",
    [b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", b"Content-Type: image/png\r\n"],
    ids=["A18 two encodings", "A18 two types"],
)
def test_two_headers_that_may_come_once(live: Live, header: bytes) -> None:
    (reply,) = live.say(RAW + CLOSE + LENGTH + header + b"\r\n" + RED)
    assert reply.code == "bad_request"


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"zstd", b"identity, gzip", b"x" * 1000], ids=str)
def test_a18_compressed(live: Live, encoding: bytes) -> None:
    """A bomb that is never unpacked."""
    bomb = gzip.compress(bytes(5_000_000))
    (reply,) = live.say(
        RAW + CLOSE + b"Content-Encoding: " + encoding + b"\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    )
    assert reply.code == "unsupported_media_type"
    assert json.loads(reply.body)["status"] == 415
