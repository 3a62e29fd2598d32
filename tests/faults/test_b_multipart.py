# ruff: noqa: E501 - one case a line
"""Class B of the catalogue: multipart and content type."""

import pytest
from hostile_images import encode, picture

from .live import CLOSE, HOST, MARKER, RED, Live, Reply

FORM = b"multipart/form-data; boundary=b"


def part(content: bytes, name: bytes = b"file", extra: bytes = b'; filename="x.png"', more: bytes = b"") -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="'
        + name
        + b'"'
        + extra
        + b"\r\n"
        + more
        + b"\r\n"
        + content
        + b"\r\n"
    )


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


ONE = form(part(RED))
CASES: dict[str, tuple[bytes, bytes, str]] = {
    "B1 no boundary": (b"multipart/form-data", ONE, "bad_multipart"),
    "B1 empty boundary": (b"multipart/form-data; boundary=", ONE, "bad_multipart"),
    "B1 wrong boundary": (b"multipart/form-data; boundary=c", ONE, "bad_multipart"),
    "B1 boundary of 300 bytes": (b"multipart/form-data; boundary=" + b"b" * 300, ONE, "bad_multipart"),
    "B1 boundary in RFC 2231": (b"multipart/form-data; boundary*0*=utf-8''%00; boundary*x=1", ONE, "bad_multipart"),
    "B1 random body": (FORM, bytes(range(256)) * 40, "bad_multipart"),
    "B2 no closing boundary": (FORM, part(RED), "bad_multipart"),
    "B2 cut in the part": (FORM, ONE[:60], "bad_multipart"),
    "B2 cut in the last boundary": (FORM, ONE[:-4], "bad_multipart"),
    "B3 empty body": (FORM, b"", "bad_multipart"),
    "B3 JSON": (b"application/json", b"{}", "unsupported_media_type"),
    "B3 no type": (b"", RED, "unsupported_media_type"),
    "B3 urlencoded": (b"application/x-www-form-urlencoded", b"file=1", "unsupported_media_type"),
    "B3 multipart/mixed": (b"multipart/mixed; boundary=b", ONE, "unsupported_media_type"),
    "B4 raw image": (b"image/png", RED, "ok"),
    "B4 raw image of a made-up type": (b"image/x-" + MARKER, RED, "ok"),
    "B6 zero bytes": (FORM, form(part(b"")), "invalid_image"),
    "B6 raw, zero bytes": (b"image/png", b"", "invalid_image"),
    "B6 empty file name": (FORM, form(part(RED, extra=b'; filename=""')), "ok"),
    "B8 17 files": (FORM, form(*[part(RED)] * 17), "bad_multipart"),
    "B8 1,001 files": (FORM, form(*[part(b"x")] * 1001), "bad_multipart"),
    "B8 1,001 fields": (FORM, form(part(RED), *[part(b"x", b"note", b"")] * 1001), "bad_multipart"),
    "B8 100,000 empty parts": (FORM, b"--b\r\n\r\n\r\n" * 100_000, "bad_multipart"),
    "B8 100,000 boundaries": (FORM, b"--b\r\n" * 100_000, "bad_multipart"),
    "B8 1.5 million lines that begin as a boundary": (FORM, form(part(b"\r\n--bx" * 1_500_000)), "bad_multipart"),
    "B8 5 million line ends": (FORM, form(part(b"\r\n" * 5_000_000)), "unsupported_media_type"),
    "B9 text field of 1.5 MB": (FORM, form(part(b"x" * 1_500_000, b"note", b""), part(RED)), "bad_multipart"),
    "B10 nine headers": (FORM, form(part(RED, more=b"X-A: b\r\n" * 9)), "bad_multipart"),
    "B10 a header of 5 kB": (FORM, form(part(RED, more=b"X-A: " + b"b" * 5000 + b"\r\n")), "bad_multipart"),
    "B10 a header name of 5 kB": (FORM, form(part(RED, more=b"X" * 5000 + b": b\r\n")), "bad_multipart"),
    "B12 parent folders": (FORM, form(part(RED, extra=b'; filename="../../etc/passwd"')), "ok"),
    "B12 NUL": (FORM, form(part(RED, extra=b'; filename="a\0b.png"')), "ok"),
    "B12 right to left": (FORM, form(part(RED, extra=b'; filename="\xe2\x80\xaegpj.exe"')), "ok"),
    "B12 4 kB": (FORM, form(part(RED, extra=b'; filename="' + b"x" * 3900 + b'"')), "ok"),
    "B12 no UTF-8": (FORM, form(part(RED, extra=b'; filename="\xff\xfe"')), "ok"),
    "B12 50 semicolons": (FORM, form(part(RED, extra=b'; filename="' + b";" * 50 + b'.png"')), "ok"),
    "B12 3,900 semicolons": (FORM, form(part(RED, extra=b'; filename="' + b";" * 3900 + b'"')), "bad_multipart"),
    "B12 RFC 2231": (FORM, form(part(RED, extra=b"; filename*=utf-8''%2e%2e%2f" + MARKER)), "ok"),
    "B12 a marker": (FORM, form(part(RED, extra=b'; filename="' + MARKER + b'"')), "ok"),
    "B14 PNG that is a JPEG": (FORM, form(part(encode(picture(), "JPEG"), more=b"Content-Type: image/png\r\n")), "ok"),
    "B15 nested": (FORM, form(part(ONE, more=b"Content-Type: multipart/form-data; boundary=c\r\n")), "unsupported_media_type"),
    "B15 base64": (FORM, form(part(b"iVBORw0KGgoAAAANSUhEUg==", more=b"Content-Transfer-Encoding: base64\r\n")), "unsupported_media_type"),
    "B15 preamble and epilogue": (FORM, b"sesame\r\n" + ONE + b"sesame", "bad_multipart"),
    "B1 quoted boundary": (b'multipart/form-data; boundary="b"', ONE, "ok"),
    "B1 boundary in capitals": (b"MULTIPART/Form-Data; BOUNDARY=b", ONE, "ok"),
    "B1 two boundaries": (b"multipart/form-data; boundary=c; boundary=b", ONE, "ok"),
    "B1 boundary with a line end": (b'multipart/form-data; boundary="b\\r\\n"', ONE, "bad_multipart"),
    "B1 boundary of 70 bytes": (b"multipart/form-data; boundary=" + b"b" * 70, ONE.replace(b"--b", b"--" + b"b" * 70), "ok"),
    "B1 boundary of 71 bytes": (b"multipart/form-data; boundary=" + b"b" * 71, ONE.replace(b"--b", b"--" + b"b" * 71), "bad_multipart"),
    "B1 60 boundaries": (b"multipart/form-data" + b"; boundary=b" * 60, ONE, "ok"),
    "B1 2,000 boundaries": (b"multipart/form-data" + b"; boundary=b" * 2_000, ONE, "bad_multipart"),
    "B1 28,000 semicolons behind a quote": (b'multipart/form-data; boundary=b; a="' + b";" * 28_000, ONE, "bad_multipart"),
    "B1 padding after a boundary": (FORM, ONE.replace(b"--b\r\n", b"--b \t \r\n"), "bad_multipart"),
    "B1 line feeds alone": (FORM, ONE.replace(b"\r\n", b"\n"), "bad_multipart"),
    "B2 junk instead of the last boundary": (FORM, ONE[:-4] + b"sesame\r\n", "bad_multipart"),
    "B2 the boundary in the content": (FORM, form(part(b"\x89PNG\r\n\x1a\n\r\n--bsesame" + RED)), "invalid_image"),
    "B2 a form cut off after its first file": (FORM, part(RED) + part(RED)[:-2], "bad_multipart"),
    "B2 a second form behind the end": (FORM, ONE + ONE, "ok"),
    "B3 multipart, form-data": (b"multipart/form-data, image/png; boundary=b", ONE, "unsupported_media_type"),
    "B3 text and image": (b"text/plain; image/png", RED, "unsupported_media_type"),
    "B3 anything": (b"*/*", RED, "unsupported_media_type"),
    "B3 a type of 8 kB": (b"application/" + b"x" * 8000, RED, "unsupported_media_type"),
    "B3 a type that is no UTF-8": (b"image\xff/png", RED, "unsupported_media_type"),
    "B4 an image with a character set": (b"IMAGE/PNG; charset=utf-8; boundary=b", RED, "ok"),
    "B4 an image and 28,000 semicolons": (b'image/png; a="' + b";" * 28_000, RED, "ok"),
    "B4 image without a kind": (b"image/", RED, "ok"),
    "B4 SVG": (b"image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg' onload='sesame'/>", "unsupported_media_type"),
    "B5 a name without quotes": (FORM, form(part(RED)).replace(b'name="file"', b"name=file"), "ok"),
    "B5 a name in capitals": (FORM, form(part(RED, name=b"FILE")), "bad_multipart"),
    "B5 two names": (FORM, form(part(RED, extra=b'; name="sesame"')), "bad_multipart"),
    "B5 a name in RFC 2231": (FORM, form(part(RED, name=b"x", extra=b"; name*=utf-8''file")), "bad_multipart"),
    "B5 no disposition": (FORM, b"--b\r\nX-A: b\r\n\r\n" + RED + b"\r\n--b--\r\n", "bad_multipart"),
    "B5 two dispositions": (FORM, form(part(RED, more=b'Content-Disposition: form-data; name="x"\r\n')), "bad_multipart"),
    "B5 an attachment": (FORM, form(part(RED)).replace(b"form-data; name", b"attachment; name"), "bad_multipart"),
    "B6 sixteen empty files": (FORM, form(*[part(b"")] * 16), "ok"),
    "B6 a part of no headers": (FORM, b"--b\r\n\r\n" + RED + b"\r\n--b--\r\n", "bad_multipart"),
    "B10 a header without a colon": (FORM, form(part(RED, more=b"sesame\r\n")), "bad_multipart"),
    "B10 a folded header": (FORM, form(part(RED, more=b"X-A: b\r\n c\r\n")), "bad_multipart"),
    "B10 a NUL in a header": (FORM, form(part(RED, more=b"X-A: \0\r\n")), "ok"),
    "B12 emoji and look-alikes": (FORM, form(part(RED, extra='; filename="\U0001f4a3\u202e\u0430.png"'.encode())), "ok"),
    "B12 line ends": (FORM, form(part(RED, extra=b'; filename="a%0d%0aX-A: sesame"')), "ok"),
    "B12 a quote in the name": (FORM, form(part(RED, extra=b'; filename="a\\"; name=\\"sesame.png"')), "ok"),
    "B15 9 MB in front": (FORM, b"x" * 9_000_000 + b"\r\n" + ONE, "bad_multipart"),
    "B15 9 MB behind": (FORM, ONE + b"x" * 9_000_000, "ok"),
    "B16 a body of 10 MiB": (b"image/png", RED + b"\0" * (10_485_760 - len(RED)), "ok"),
}  # fmt: skip


def send(live: Live, kind: bytes, body: bytes) -> Reply:
    head = b"POST /classify HTTP/1.1\r\n" + HOST + CLOSE + (b"Content-Type: " + kind + b"\r\n" if kind else b"")
    (reply,) = live.say(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return reply


@pytest.mark.parametrize(("kind", "body", "code"), CASES.values(), ids=CASES)
def test_body(live: Live, kind: bytes, body: bytes, code: str) -> None:
    assert send(live, kind, body).code == code


def test_b7_two_files_are_two_results_in_order(live: Live) -> None:
    reply = send(live, FORM, form(part(RED), part(b"no image at all"), part(RED)))
    assert reply.code == "ok"
    assert reply.body.count(b'"predictions"') == 2
    assert reply.body.index(b'"error"') < reply.body.rindex(b'"predictions"')
