# ruff: noqa: E501 - one case a line
"""The pages and their files, and the documents that a service tells of itself."""

import pytest

from .live import CLOSE, HOST, MARKER, RED, Live

TARGETS = {
    "A16 the page": (b"GET /", b"", "ok"),
    "A16 a script": (b"GET /page/page.js", b"", "ok"),
    "A16 the document": (b"GET /openapi.json", b"", "ok"),
    "A16 parent folders": (b"GET /page/../../../etc/passwd", b"", "not_found"),
    "A16 parent folders, encoded": (b"GET /page/%2e%2e%2f%2e%2e%2fetc%2fpasswd", b"", "not_found"),
    "A16 parent folders, encoded twice": (b"GET /page/%252e%252e%252froutes.py", b"", "not_found"),
    "A16 backslashes": (b"GET /page/..\\..\\routes.py", b"", "not_found"),
    "A16 another module": (b"GET /page/../routes.py", b"", "not_found"),
    "A16 absolute": (b"GET /page//etc/passwd", b"", "not_found"),
    "A16 NUL": (b"GET /page/page.js%00", b"", "not_found"),
    "A16 no UTF-8": (b"GET /page/%ff", b"", "not_found"),
    "A16 another case": (b"GET /page/PAGE.JS", b"", "not_found"),
    "A16 a folder": (b"GET /page/examples/", b"", "not_found"),
    "A16 a way around": (b"GET /page/examples/../page.js", b"", "not_found"),
    "A16 a stream": (b"GET /page/page.js::$DATA", b"", "not_found"),
    "A16 4,000 folders": (b"GET /page/" + b"a/" * 3_900, b"", "not_found"),
    "A16 a query": (b"GET /page/page.js?sesame=<script", b"", "ok"),
    "A16 POST": (b"POST /page/page.js", b"Content-Length: 0\r\n", "method_not_allowed"),
    "A16 DELETE": (b"DELETE /page/examples/", b"", "method_not_allowed"),
    "A16 reload": (b"POST /models/reload", b"Content-Length: 0\r\n", "not_found"),
    "A16 reload of a model": (b"POST /models/tiny-colours/reload", b"Content-Length: 0\r\n", "not_found"),
    "A17 ranges": (b"GET /page/page.css", b"Range: bytes=" + b"0-0," * 500 + b"0-\r\n", "ok"),
    "A17 a range of nothing": (b"GET /", b"Range: bytes=99999999-\r\nIf-Range: sesame\r\n", "ok"),
    "A17 anything known": (b"GET /", b"If-None-Match: *\r\n", "ok"),
    "A17 30 kB of what is known": (b"GET /", b"If-None-Match: " + b'W/"sesame",' * 2_700 + b"\r\n", "ok"),
    "A17 what is known is no UTF-8": (b"GET /", b'If-None-Match: "\xff\xfe"\r\n', "ok"),
    "A17 a language, an encoding, a cookie": (b"GET /docs", b"Accept-Language: sesame\r\nAccept-Encoding: sesame\r\nCookie: sesame=1\r\n", "ok"),
    "A17 an origin": (b"GET /page/page.js", b"Origin: http://sesame\r\nSec-Fetch-Site: cross-site\r\n", "ok"),
}  # fmt: skip


@pytest.mark.parametrize(("target", "more", "code"), TARGETS.values(), ids=TARGETS)
def test_target(live: Live, target: bytes, more: bytes, code: str) -> None:
    (reply,) = live.say(target + b" HTTP/1.1\r\n" + HOST + CLOSE + more + b"\r\n")
    assert reply.code == code
    assert not {"content-range", "access-control-allow-origin", "set-cookie"} & reply.headers.keys()
    assert MARKER.decode() not in str(reply.headers)


def test_a17_what_a_browser_has_is_not_sent_again(live: Live) -> None:
    page = b"GET / HTTP/1.1\r\n" + HOST
    (first,) = live.say(page + CLOSE + b"\r\n")
    known = b'If-None-Match: "sesame", W/' + first.headers["etag"].encode() + b"\r\n"
    again, after = live.say(page + known + b"\r\n" + page + CLOSE + b"\r\n")
    assert (again.status, again.body, after.body) == (304, b"", first.body)


def test_a15_a_body_that_no_page_wants(live: Live) -> None:
    body = b"Content-Length: %d\r\n\r\n" % len(RED) + RED
    page = b"GET /page/page.js HTTP/1.1\r\n" + HOST
    assert [each.code for each in live.say(page + body + page + CLOSE + b"\r\n")] == ["ok", "ok"]
