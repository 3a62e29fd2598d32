"""Class C of the catalogue: parameters."""

import pytest

from .live import CLOSE, HOST, MARKER, RED, Live

_MANY = "9" * 400
QUERIES = {
    "C1 k=0": ("k=0", "invalid_parameter"),
    "C1 k=-1": ("k=-1", "invalid_parameter"),
    "C1 k=101": ("k=101", "invalid_parameter"),
    "C1 k=1e3": ("k=1e3", "invalid_parameter"),
    "C1 k=word": (f"k={MARKER.decode()}", "invalid_parameter"),
    "C1 k is empty": ("k=", "invalid_parameter"),
    "C1 k of 400 digits": (f"k={_MANY}", "invalid_parameter"),
    "C1 k in Arabic digits": ("k=%D9%A3", "invalid_parameter"),
    "C1 k in superscript": ("k=%C2%B2", "invalid_parameter"),
    "C1 k with a sign": ("k=%2B1", "invalid_parameter"),
    "C1 k with an underscore": ("k=1_0", "invalid_parameter"),
    "C1 k is a float": ("k=1.0", "invalid_parameter"),
    "C1 k in hexadecimal": ("k=0x1", "invalid_parameter"),
    "C1 k with spaces": ("k=%201", "invalid_parameter"),
    "C1 k with a line end": ("k=1%0A", "invalid_parameter"),
    "C1 k with NUL": ("k=1%00", "invalid_parameter"),
    "C1 k is no UTF-8": ("k=%FF", "invalid_parameter"),
    "C1 k is infinite": ("k=inf", "invalid_parameter"),
    "C1 k is a list": ("k[]=1", "invalid_parameter"),
    "C1 k in an escape of other languages": ("k=%u0033", "invalid_parameter"),
    "C1 k in half an escape": ("k=%3", "invalid_parameter"),
    "C1 k in a broken escape": ("k=%zz", "invalid_parameter"),
    "C1 k in an escape": ("k=%33", "ok"),
    "C1 k escaped twice": ("k=%2533", "invalid_parameter"),
    "C1 k in full-width digits": ("k=%EF%BC%93", "invalid_parameter"),
    "C1 k in Roman digits": ("k=%E2%85%A2", "invalid_parameter"),
    "C1 k in binary": ("k=0b1", "invalid_parameter"),
    "C1 k is a tab and a digit": ("k=%091", "invalid_parameter"),
    "C1 k with plus, a space": ("k=+1", "invalid_parameter"),
    "C1 k is -0": ("k=-0", "invalid_parameter"),
    "C1 k is 0 in many digits": ("k=000000000", "invalid_parameter"),
    "C1 k in ten digits": ("k=0000000001", "invalid_parameter"),
    "C1 k is a sum": ("k=1%2B1", "invalid_parameter"),
    "C1 k is true": ("k=true", "invalid_parameter"),
    "C1 two signs of equality": ("k==1", "invalid_parameter"),
    "C1 leading zeros": ("k=000000001", "ok"),
    "C1 k is valid": ("k=3", "ok"),
    "C1 max_patches=0": ("max_patches=0", "invalid_parameter"),
    "C1 max_patches=-5": ("max_patches=-5", "invalid_parameter"),
    "C1 max_patches of 400 digits": (f"max_patches={_MANY}", "invalid_parameter"),
    "C1 max_patches over the model's": ("max_patches=999999999", "ok"),
    "C1 one patch": ("max_patches=1", "ok"),
    "C3 k over the classes": ("k=4", "invalid_parameter"),
    "C4 unknown": (f"{MARKER.decode()}=1", "invalid_parameter"),
    "C4 empty name": ("=1", "invalid_parameter"),
    "C4 no value": ("k", "invalid_parameter"),
    "C4 twice, the last counts": ("k=0&k=1", "ok"),
    "C4 twice, the last is wrong": ("k=1&k=0", "invalid_parameter"),
    "C4 encoded name": ("%6B=1", "ok"),
    "C4 semicolons": ("k=1;k=2", "invalid_parameter"),
    "C4 a thousand": ("&".join(f"a{index}=1" for index in range(1000)), "invalid_parameter"),
    "C4 a thousand of one": ("&".join(["k=1"] * 1000), "ok"),
    "C4 empty query": ("", "ok"),
    "C4 only separators": ("&&&&", "ok"),
    "C4 percent alone": ("%", "invalid_parameter"),
    "C4 twice, one of them escaped": ("k=1&%6B=0", "invalid_parameter"),
    "C4 another case": ("K=1", "invalid_parameter"),
    "C4 a prototype": ("__proto__=1", "invalid_parameter"),
    "C4 an index": ("k[0]=1", "invalid_parameter"),
    "C4 a name with NUL": ("k%00=1", "invalid_parameter"),
    "C4 degraded in capitals": ("allow_degraded=TRUE", "invalid_parameter"),
    "C4 degraded in an escape": ("allow_degraded=%74rue", "ok"),
    "C4 2,000 separators": ("&" * 2000, "ok"),
    "C5 model: parent folders": ("model=../../etc/passwd", "not_found"),
    "C5 model: empty": ("model=", "not_found"),
    "C5 model: no version": ("model=tiny-colours@", "not_found"),
    "C5 model: two versions": ("model=tiny-colours@1.0.0@1.0.0", "not_found"),
    "C5 model: NUL": ("model=tiny-colours%00", "not_found"),
    "C5 model: look-alike": ("model=tiny-c%D0%BElours", "not_found"),
    "C5 model: 4 kB": ("model=" + "a" * 4096, "not_found"),
    "C5 model: by name": ("model=tiny-colours@1.0.0", "ok"),
    "C6 image by URL": ("url=http://169.254.169.254/", "invalid_parameter"),
    "C7 deadline 0": ("timeout_ms=0", "invalid_parameter"),
    "C7 deadline negative": ("timeout_ms=-1", "invalid_parameter"),
    "C7 deadline NaN": ("timeout_ms=nan", "invalid_parameter"),
    "C7 deadline 10^12": ("timeout_ms=1000000000000", "invalid_parameter"),
    "C7 deadline 1e999": ("timeout_ms=1e999", "invalid_parameter"),
    "C7 deadline in seconds": ("timeout_ms=2s", "invalid_parameter"),
    "C7 deadline over the maximum": ("timeout_ms=20001", "invalid_parameter"),
}


@pytest.mark.parametrize(("query", "code"), QUERIES.values(), ids=QUERIES)
def test_query(live: Live, query: str, code: str) -> None:
    assert live.post(RED, query=b"?" + query.encode()).code == code


NAMES = {
    "C5 parent folders": b"../../etc/passwd",
    "C5 encoded slashes": b"..%2f..%2fetc%2fpasswd",
    "C5 encoded twice": b"..%252f..%252fetc%252fpasswd",
    "C5 backslashes": b"..\\..\\etc\\passwd",
    "C5 overlong UTF-8": b"..%c0%af..%c0%afetc%c0%afpasswd",
    "C5 NUL": b"%00",
    "C5 NUL after the name": b"tiny-colours%00",
    "C5 absolute": b"/etc/passwd",
    "C5 absolute, encoded": b"%2fetc%2fpasswd",
    "C5 4 kB": b"a" * 4096,
    "C5 look-alike": b"tiny-c%D0%BElours",
    "C5 upper case": b"TINY-COLOURS",
    "C5 space": b"tiny-colours%20",
    "C5 dot": b".",
    "C5 dots": b"..",
    "C5 template": b"%7B%7B7*7%7D%7D",
    "C5 line end": b"a%0d%0aX-Injected:%201",
    "C5 matrix": b"tiny-colours;v=1",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_model_name(live: Live, name: bytes) -> None:
    (reply,) = live.say(b"GET /models/" + name + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert reply.code == "not_found"


def test_c5_the_name_itself(live: Live) -> None:
    (reply,) = live.say(b"GET /models/tiny-colours HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert reply.code == "ok"
