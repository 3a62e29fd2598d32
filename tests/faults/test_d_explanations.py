# ruff: noqa: E501 - one case a line
"""What clients can send to /explain and /embed: where these do something that /classify does not."""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable

import pytest
from hostile_images import CASES, Case, encode, jpeg_with_scans, lying_jpeg, picture
from PIL import Image

from .live import HOST, RED, Live
from .test_b_multipart import FORM, form, part
from .test_d_images import MORE, large_png

EXPLAIN, EMBED = b"/explain", b"/embed"
PICTURE = b"Accept: image/png\r\n"
TWO = form(part(RED), part(RED))

QUERIES = {
    "C1 explain: k=0": (EXPLAIN, b"k=0", "invalid_parameter"),
    "C1 explain: k in Arabic digits": (EXPLAIN, b"k=%D9%A3", "invalid_parameter"),
    "C1 explain: k is no UTF-8": (EXPLAIN, b"k=%FF", "invalid_parameter"),
    "C1 explain: k of 400 digits": (EXPLAIN, b"k=" + b"9" * 400, "invalid_parameter"),
    "C1 explain: one patch": (EXPLAIN, b"max_patches=1", "ok"),
    "C3 explain: k over the classes": (EXPLAIN, b"k=4", "invalid_parameter"),
    "C4 explain: twice, the last counts": (EXPLAIN, b"k=0&k=1", "ok"),
    "C4 explain: twice, the last is wrong": (EXPLAIN, b"k=1&k=0", "invalid_parameter"),
    "C4 explain: a thousand": (EXPLAIN, b"&".join(b"a%d=1" % each for each in range(900)), "invalid_parameter"),
    "C4 explain: a parameter of embed": (EXPLAIN, b"normalize=true", "invalid_parameter"),
    "C4 explain: a field of the engine": (EXPLAIN, b"extras=1", "invalid_parameter"),
    "C4 embed: a parameter of classify": (EMBED, b"k=1", "invalid_parameter"),
    "C4 embed: normalize is a word": (EMBED, b"normalize=sesame", "invalid_parameter"),
    "C4 embed: normalize is 1": (EMBED, b"normalize=1", "invalid_parameter"),
    "C4 embed: normalize is empty": (EMBED, b"normalize=", "invalid_parameter"),
    "C4 embed: normalize is false": (EMBED, b"normalize=false", "ok"),
    "C4 embed: only separators": (EMBED, b"&&&&", "ok"),
    "C5 explain: another model": (EXPLAIN, b"model=../../etc/passwd", "not_found"),
    "C5 embed: NUL": (EMBED, b"model=tiny-colours%00", "not_found"),
    "C7 explain: deadline NaN": (EXPLAIN, b"timeout_ms=nan", "invalid_parameter"),
    "C7 embed: deadline 10^12": (EMBED, b"timeout_ms=1000000000000", "invalid_parameter"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "query", "code"), QUERIES.values(), ids=QUERIES)
def test_query(live: Live, path: bytes, query: bytes, code: str) -> None:
    assert live.post(RED, query=b"?" + query, path=path).code == code


BODIES = {
    "B2 explain: cut off": (EXPLAIN, FORM, part(RED), b"", "bad_multipart"),
    "B3 explain: JSON": (EXPLAIN, b"application/json", b"{}", b"", "unsupported_media_type"),
    "B6 explain: nothing, as a picture": (EXPLAIN, FORM, form(part(b"")), PICTURE, "invalid_image"),
    "B6 embed: nothing": (EMBED, FORM, form(part(b"")), b"", "invalid_image"),
    "B6 explain: sixteen times nothing": (EXPLAIN, FORM, form(*[part(b"")] * 16), b"", "ok"),
    "B6 embed: sixteen times nothing": (EMBED, FORM, form(*[part(b"")] * 16), b"", "ok"),
    "B7 explain: two files as one picture": (EXPLAIN, FORM, TWO, PICTURE, "not_acceptable"),
    "B7 explain: nothing and a file, as a picture": (EXPLAIN, FORM, form(part(b""), part(RED)), PICTURE, "not_acceptable"),
    "B7 embed: two files": (EMBED, FORM, TWO, PICTURE, "ok"),
    "B8 explain: 17 files as one picture": (EXPLAIN, FORM, form(*[part(RED)] * 17), PICTURE, "bad_multipart"),
    "A18 explain: compressed": (EXPLAIN, b"image/png", RED, PICTURE + b"Content-Encoding: gzip\r\n", "unsupported_media_type"),
    "A17 explain: 30 kB of types": (EXPLAIN, b"image/png", RED, b"Accept: " + b"a/b;q=NaN," * 3000 + b"image/png\r\n", "ok"),
    "A17 explain: a type that is no UTF-8": (EXPLAIN, b"image/png", RED, b"Accept: \xff\xfe/png\r\n", "ok"),
    "A17 explain: ranges of a picture": (EXPLAIN, b"image/png", RED, PICTURE + b"Range: bytes=0-0,-1\r\n", "ok"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "kind", "body", "more", "code"), BODIES.values(), ids=BODIES)
def test_body(live: Live, path: bytes, kind: bytes, body: bytes, more: bytes, code: str) -> None:
    assert live.post(body, kind, path=path, more=more).code == code


@pytest.mark.faults_slow
@pytest.mark.parametrize("case", [case for case in CASES if len(case.row) > 1], ids=str)
def test_picture(live: Live, case: Case) -> None:
    """A picture is decoded once more, at a size of its own: whatever is classified can be painted."""
    assert live.post(case.build(), path=EXPLAIN, more=PICTURE).code == (case.code or "ok")


LARGE = {
    "D1 PNG, 49 Mpx": lambda: large_png(8, 2),
    "D5 progressive JPEG claims 7000x7000": lambda: lying_jpeg(7000, 7000, jpeg_with_scans(9)),
    "D16 CMYK, 36 Mpx": lambda: encode(Image.new("CMYK", (6000, 6000)), "JPEG"),
    "D22 30000x300": lambda: encode(picture(30_000, 300), "PNG"),
    "D22 300x30000": lambda: encode(picture(300, 30_000), "JPEG"),
    **{name: build for name, build, _ in MORE if name in {"D14 WebP frame on a canvas of 49 Mpx", "D6 WebP of one colour, 49 Mpx"}},
}  # fmt: skip


@pytest.mark.faults_slow
@pytest.mark.parametrize("build", LARGE.values(), ids=LARGE)
def test_large_picture(live: Live, build: Callable[[], bytes]) -> None:
    reply = live.post(build(), path=EXPLAIN, more=PICTURE)
    assert (reply.code, reply.headers["content-type"]) == ("ok", "image/png")


@pytest.mark.faults_slow
def test_b7_sixteen_images_in_numbers(live: Live) -> None:
    """The whole reply of sixteen images, of which each has the attention of all its patches."""
    reply = live.post(form(*[part(encode(picture(300, 300), "PNG"))] * 16), FORM, path=EXPLAIN)
    assert [len(each["attention"]) for each in json.loads(reply.body)["results"]] == [10] * 16


def asks(path: bytes, body: bytes, more: bytes = b"") -> bytes:
    head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + more
    return head + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("path", [EXPLAIN, EMBED], ids=["E6 explain", "E6 embed"])
def test_gone_while_sending(live: Live, path: bytes) -> None:
    with live.connect() as conversation:
        conversation.send(asks(path, RED, PICTURE)[:-10])
    live.expect_unanswered(client_closed=1)


def test_e5_pictures_that_are_not_read(live: Live) -> None:
    """They count as memory until the service closes: uploads and pictures have one bound."""
    noise = encode(Image.effect_noise((1024, 1024), 100).convert("RGB"), "JPEG")
    size = len(live.post(noise, path=EXPLAIN, more=PICTURE).body)
    with socket.socket() as unread:
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        unread.connect(("127.0.0.1", live.service.port))
        unread.sendall(asks(EXPLAIN, noise, PICTURE) * 3)  # the kernel keeps the first one or two
        until = time.monotonic() + 20
        while live.count("upload_bytes") != size:  # of a picture that the connection has not taken, and nothing else
            assert time.monotonic() < until
        live.wait_for("upload_bytes", 0)
    live.settle()
    live.expect_unanswered(**(live.state().outcomes - live.before.outcomes - Counter(["ok"])))


@pytest.mark.faults_slow
def test_c7_a_picture_that_is_late(live: Live) -> None:
    """49 Mpx twice in a tenth of a second: refused, or late, and no error of ours."""
    reply = live.post(large_png(8, 2), query=b"?timeout_ms=100", path=EXPLAIN, more=PICTURE)
    assert reply.code in {"overloaded", "deadline_exceeded"}
    live.late += reply.status == 504
