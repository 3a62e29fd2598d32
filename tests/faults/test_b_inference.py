# ruff: noqa: E501 - one case a line
"""Bodies under /v2: JSON, tensors and binary data that lie. Its errors have no code: cases name the status."""

import json
from typing import Any

import numpy as np
import pytest
from hostile_images import CASES, Case
from infer_bodies import binary_images, binary_patches, json_images, json_patches, packed, with_binary

from .live import CLOSE, HOST, MARKER, RED, Live, Reply

MODEL = b"/v2/models/tiny-colours"
INFER = MODEL + b"/infer"
SIDE = 4 * 4 * 3  # values of a patch
NOISE = np.random.default_rng(0).integers(0, 256, (2, 6, SIDE), np.uint8)
GOOD = json.dumps(json_images(RED)).encode()
Sent = bytes | tuple[bytes, dict[str, str]]


def infer(live: Live, sent: Sent, path: bytes = INFER, more: bytes = b"") -> Reply:
    body, headers = (sent, {}) if isinstance(sent, bytes) else sent
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
    return live.post(body, b"application/octet-stream", path=path, more=lines + more)


def framed(length: str, body: bytes = GOOD) -> Sent:
    """A body with this in the header that says how much of it is JSON."""
    return body, {"Inference-Header-Content-Length": length}


def image(**members: Any) -> dict[str, Any]:
    """One input `image`, with members changed."""
    document = json_images(RED)
    document["inputs"][0] |= members
    return document


def sized(size: Any, blob: bytes = packed(RED)) -> Sent:
    """One binary image that says to have this many bytes."""
    document = image(parameters={"binary_data_size": size})
    del document["inputs"][0]["data"]
    return with_binary(document, blob)


def cut(place: int, **members: Any) -> bytes:
    """Two images of 2x3 patches, with members of `patches` (0) or `grid` (1) changed."""
    document = json_patches(NOISE, [(2, 3), (1, 4)])
    document["inputs"][place] |= members
    return json.dumps(document).encode()


def grids(*pairs: tuple[int, int]) -> bytes:
    return cut(1, data=list(pairs))


def asked(**members: Any) -> bytes:
    return json.dumps(json_images(RED, **members)).encode()


def output(**parameters: Any) -> bytes:
    return asked(outputs=[{"name": "logits", "parameters": parameters}])


BODIES: dict[str, tuple[Sent, str]] = {
    "B1 a length beyond the end": (framed(str(len(GOOD) + 1)), "400"),
    "B1 a negative length": (framed("-1"), "400"),
    "B1 a length with a sign": (framed("+5"), "400"),
    "B1 no length": (framed(""), "400"),
    "B1 a length of 400 digits": (framed("9" * 400), "400"),
    "B1 a length with an exponent": (framed("1e2"), "400"),
    "B1 half of the JSON": (framed(str(len(GOOD) // 2)), "400"),
    "B1 JSON that is said to be an image": (framed("0"), "415"),
    "B1 an image without JSON": (framed("0", RED), "ok"),
    "B1 nothing without JSON": (framed("0", b""), "400"),
    "B2 a size beyond the end": (sized(10**6), "400"),
    "B2 a size before the end": (sized(5), "400"),
    "B2 size 0": (sized(0), "400"),
    "B2 a negative size": (sized(-5), "400"),
    "B2 a size of 2^31": (sized(2**31), "400"),
    "B2 a size of 2^63": (sized(2**63), "400"),
    "B2 a size in quotes": (sized("5"), "400"),
    "B2 a size that is a fraction": (sized(1.5), "400"),
    "B2 a size that is true": (sized(True), "400"),
    "B2 a size and values": (with_binary(image(parameters={"binary_data_size": 5}), b"hello"), "400"),
    "B2 binary data that nobody named": (with_binary(image(), b"sesame"), "400"),
    "B2 an image of 4 GB": (sized(8, b"\xff\xff\xff\xffPNG\n"), "400"),
    "B2 an image of half a length": (sized(3, b"\1\0\0"), "400"),
    "B2 an image and a byte": (sized(len(packed(RED)) + 1, packed(RED) + b"x"), "400"),
    "B2 two images where one is said": (sized(2 * len(packed(RED)), packed(RED, RED)), "400"),
    "B2 two inputs of the same bytes": (with_binary({"inputs": [{"name": name, "datatype": kind, "shape": [1, 1, SIDE], "parameters": {"binary_data_size": SIDE}} for name, kind in (("patches", "UINT8"), ("grid", "INT64"))]}, bytes(SIDE)), "400"),
    "B3 empty": (b"", "400"),
    "B3 text": (MARKER, "400"),
    "B3 a form": (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n', "400"),
    "B3 UTF-16": (GOOD.decode().encode("utf-16"), "400"),
    "B3 a byte-order mark": (b"\xef\xbb\xbf" + GOOD, "400"),
    "B3 no UTF-8": (b'{"id": "\xff", ' + GOOD[1:], "400"),
    "B3 half of a surrogate": (b'{"id": "\\ud800", ' + GOOD[1:], "400"),
    "B3 a NUL": (b'{"own": "\\u0000", ' + GOOD[1:], "ok"),
    "B3 NaN": (b'{"own": NaN, ' + GOOD[1:], "400"),
    "B3 infinity": (b'{"own": -Infinity, ' + GOOD[1:], "400"),
    "B3 1e999, in a member that nobody reads": (b'{"own": 1e999, ' + GOOD[1:], "ok"),
    "B3 null": (b"null", "400"),
    "B3 a list": (b"[]", "400"),
    "B3 a comment": (b"/**/" + GOOD, "400"),
    "B3 a comma at the end": (GOOD[:-1] + b",}", "400"),
    "B3 two documents": (GOOD + GOOD, "400"),
    "B3 cut off": (GOOD[:-1], "400"),
    "B3 100,000 deep": (b"[" * 100_000, "400"),
    "B3 100,000 deep, in objects": (b'{"a":' * 100_000, "400"),
    "B3 values 150 deep": (json.dumps(image()).encode().replace(b'"data": [', b'"data": [' + b"[" * 150).replace(b'"]}]', b'"' + b"]" * 151 + b"}]"), "400"),
    "B3 a member twice, the last counts": (b'{"inputs": 1, ' + GOOD[1:], "ok"),
    "B3 10,000 digits": (b'{"own": ' + b"9" * 10_000 + b", " + GOOD[1:], "400"),
    "B3 9 MB of digits": (b'{"own": ' + b"9" * 9_000_000 + b", " + GOOD[1:], "400"),
    "B3 9 MB of spaces": (b" " * 9_000_000 + GOOD, "ok"),
    "B3 9 MB of brackets": (b"[]" * 4_500_000, "400"),
    "B3 9 MB of escapes": (b'{"own": "' + b"\\u0041" * 1_500_000 + b'", ' + GOOD[1:], "ok"),
    "B3 400,000 members": (b"{" + b"".join(b'"%d":0,' % each for each in range(400_000)) + GOOD[1:], "400"),
    "B3 9,000 members": (b"{" + b"".join(b'"%d":0,' % each for each in range(9_000)) + GOOD[1:], "ok"),
    "B3 9.5 MB of lists in lists": (b'{"own": [' + (b"[" * 9 + b"]" * 9 + b",") * 490_000 + b"0], " + GOOD[1:], "400"),
    "B3 4 million values": (b'{"own": [' + b"0," * 4_000_000 + b"0], " + GOOD[1:], "400"),
    "B3 a prototype": (b'{"__proto__": {"inputs": 1}, "constructor": [], ' + GOOD[1:], "ok"),
    "B6 an empty image": (json.dumps(json_images(b"")).encode(), "422"),
    "B6 sixteen empty images": (binary_images(*[b""] * 16), "422"),
    "B7 an input twice": (json.dumps({"inputs": json_images(RED)["inputs"] * 2}).encode(), "400"),
    "B8 seventeen images": (binary_images(*[RED] * 17), "400"),
    "B8 a thousand inputs": (json.dumps({"inputs": json_images(RED)["inputs"] * 1000}).encode(), "400"),
    "B8 no input": (b'{"inputs": []}', "400"),
    "B15 no base64": (json.dumps(image(data=["sesame!"])).encode(), "400"),
    "B15 base64 of addresses": (json.dumps(image(data=["_-_-"])).encode(), "400"),
    "B15 base64 in lines": (json.dumps(image(data=["QUJD\n"])).encode(), "400"),
    "B15 base64 with too much padding": (json.dumps(image(data=["QUI==="])).encode(), "400"),
    "B15 9 MB of base64": (json.dumps(image(data=["A" * 9_000_000])).encode(), "415"),
    "C5 an image of shape 2": (json.dumps(image(shape=[2])).encode(), "400"),
    "C5 an image of shape 10^9": (json.dumps(image(shape=[10**9])).encode(), "400"),
    "C5 an image of numbers": (json.dumps(image(datatype="UINT8", data=[0])).encode(), "400"),
    "C5 an unknown input": (json.dumps(image(name="sesame")).encode(), "400"),
    "C5 an image beside patches": (json.dumps({"inputs": json_images(RED)["inputs"] + json_patches(NOISE, [(2, 3)] * 2)["inputs"][:1]}).encode(), "400"),
    "C5 patches without a grid": (json.dumps({"inputs": json_patches(NOISE, [(2, 3)] * 2)["inputs"][:1]}).encode(), "400"),
    "C5 patches, in JSON": (cut(0), "ok"),
    "C5 patches, binary": (binary_patches(NOISE, [(2, 3), (1, 1)]), "ok"),
    "C5 patches one value short": (cut(0, shape=[2, 6, SIDE - 1]), "400"),
    "C5 patches of shape 2^31 in each axis": (cut(0, shape=[2**31 - 1] * 3), "400"),
    "C5 patches of shape 2^63": (cut(0, shape=[2, 2**63, SIDE]), "400"),
    "C5 patches of shape 0": (cut(0, shape=[2, 0, SIDE], data=[]), "400"),
    "C5 patches of a negative shape": (cut(0, shape=[-2, -6, SIDE]), "400"),
    "C5 patches of a shape with a fraction": (cut(0, shape=[2, 6.0, SIDE]), "400"),
    "C5 patches of a shape of 1,000 axes": (cut(0, shape=[1] * 1000), "400"),
    "C5 patches of floats": (cut(0, datatype="FP32"), "400"),
    "C5 patches that are floats": (cut(0, data=[0.0] * 12 * SIDE), "400"),
    "C5 patches over 255": (cut(0, data=[256] * 12 * SIDE), "400"),
    "C5 patches of 10^300": (cut(0, data=[10**300] * 12 * SIDE), "400"),
    "C5 patches of strings": (cut(0, data=["0"] * 12 * SIDE), "400"),
    "C5 101 patches": (binary_patches(np.zeros((1, 101, SIDE), np.uint8), [(1, 101)]), "400"),
    "C5 100 patches, one used": (binary_patches(np.zeros((1, 100, SIDE), np.uint8), [(1, 1)]), "ok"),
    "C5 a grid of nothing": (grids((0, 6), (1, 4)), "400"),
    "C5 a negative grid": (grids((-2, -3), (1, 4)), "400"),
    "C5 a grid over its patches": (grids((2, 4), (1, 4)), "400"),
    "C5 a grid of 2^32 by 2^32": (grids((2**32, 2**32), (1, 4)), "400"),
    "C5 a grid of 2^63": (grids((2**63, 1), (1, 4)), "400"),
    "C5 a grid of the lowest number": (grids((-(2**63), -(2**63)), (1, 4)), "400"),
    "C5 a grid for one of two": (cut(1, shape=[1, 2], data=[2, 3]), "400"),
    "C5 a grid of three": (cut(1, shape=[2, 3], data=[1] * 6), "400"),
    "C5 a grid of bytes": (cut(1, datatype="UINT8"), "400"),
    "C4 timeout -1": (asked(parameters={"timeout": -1}), "400"),
    "C4 timeout 0": (asked(parameters={"timeout": 0}), "ok"),
    "C4 timeout 2^63 - 1": (asked(parameters={"timeout": 2**63 - 1}), "ok"),
    "C4 timeout 2^64": (asked(parameters={"timeout": 2**64}), "400"),
    "C4 timeout 1e999": (asked(parameters={"timeout": 5}).replace(b": 5", b": 1e999"), "400"),
    "C4 max_patches 0": (asked(parameters={"max_patches": 0}), "400"),
    "C4 max_patches 2^31 - 1": (asked(parameters={"max_patches": 2**31 - 1}), "ok"),
    "C4 degraded is 1": (asked(parameters={"allow_degraded": 1}), "400"),
    "C4 parameters are a list": (asked(parameters=[1]), "400"),
    "C4 parameters of parameters": (asked(parameters={"own": {"own": [[]]}}), "ok"),
    "C4 an id that is a number": (asked(id=1), "400"),
    "C4 an id of 257 characters": (asked(id="\U0001f4a3" * 257), "400"),
    "C4 classification -1": (output(classification=-1), "400"),
    "C4 classification 2^31 - 1": (output(classification=2**31 - 1), "ok"),
    "C4 classification of NaN": (output(classification=5).replace(b": 5", b": NaN"), "400"),
    "C4 binary is a word": (output(binary_data="sesame"), "400"),
    "C4 attention": (asked(outputs=[{"name": "attention", "parameters": {"binary_data": True}}]), "ok"),
    "C4 an unknown output": (asked(outputs=[{"name": "sesame"}]), "400"),
    "C4 an output twice": (asked(outputs=[{"name": "logits"}] * 2), "400"),
    "C6 an image by address": (json.dumps(image(data=["http://169.254.169.254/"])).encode(), "400"),
    "C6 shared memory": (output(shared_memory_region="/dev/mem"), "400"),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "code"), BODIES.values(), ids=BODIES)
def test_body(live: Live, sent: Sent, code: str) -> None:
    assert infer(live, sent).code == code


@pytest.mark.faults_slow
@pytest.mark.parametrize("case", [case for case in CASES if len(case.row) > 1], ids=str)
def test_image(live: Live, case: Case) -> None:
    expected = {"invalid_image": "422", "image_too_large": "422", "unsupported_media_type": "415", None: "ok"}
    assert infer(live, binary_images(case.build())).code == expected[case.code]


TARGETS = {
    "A16 GET": (b"GET " + INFER, "405"),
    "A16 DELETE": (b"DELETE " + MODEL, "405"),
    "A16 a slash at the end": (b"GET /v2/", "404"),
    "A16 two slashes": (b"GET /v2//models", "404"),
    "A16 parent folders": (b"GET /v2/../../etc/passwd", "404"),
    "A16 ready": (b"GET /v2/health/ready", "ok"),
    "A16 the service": (b"GET /v2", "ok"),
    "A16 a model": (b"GET " + MODEL, "ok"),
    "A16 settings of the log": (b"GET /v2/models/x/config", "400"),
    "A16 what is in shared memory": (b"GET /v2/systemsharedmemory/region/../../etc/passwd/status", "400"),
    "C5 model: parent folders": (b"GET /v2/models/..%2f..%2fetc%2fpasswd", "404"),
    "C5 model: NUL": (b"GET " + MODEL + b"%00/ready", "404"),
    "C5 model: a version in its name": (b"GET " + MODEL + b"@1.0.0@1.0.0", "404"),
    "C5 model: 4 kB": (b"GET /v2/models/" + b"a" * 4096 + b"/ready", "404"),
    "C5 version: parent folders": (b"GET " + MODEL + b"/versions/..%2f..", "404"),
    "C5 version: no UTF-8": (b"GET " + MODEL + b"/versions/%ff/ready", "404"),
    "C5 version: none": (b"GET " + MODEL + b"/versions//ready", "404"),
    "C5 version": (b"GET " + MODEL + b"/versions/1.0.0/ready", "ok"),
}  # fmt: skip


@pytest.mark.parametrize(("target", "code"), TARGETS.values(), ids=TARGETS)
def test_target(live: Live, target: bytes, code: str) -> None:
    (reply,) = live.say(target + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert reply.code == code


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"/v2/models/..%2f..%2fetc%2fpasswd/infer", "404"),
        (MODEL + b"/versions/2/infer", "404"),
        (MODEL + b"/generate", "400"),
        (b"/v2/repository/index", "ok"),
        (b"/v2/repository/models/sesame/load", "400"),
        (b"/v2/cudasharedmemory/region/sesame/register", "400"),
        (b"/v2/sesame", "404"),
    ],
    ids=["C5 name", "C5 version", "A16 generate", "A16 index", "A16 load", "A16 memory", "A16 nothing"],
)
def test_a_body_that_nobody_reads(live: Live, path: bytes, code: str) -> None:
    assert infer(live, MARKER * 1_000_000, path=path).code == code


@pytest.mark.parametrize("encoding", [b"gzip", b"identity, br"], ids=["A18 gzip", "A18 two"])
def test_compressed(live: Live, encoding: bytes) -> None:
    assert infer(live, GOOD, more=b"Content-Encoding: " + encoding + b"\r\n").code == "415"


def test_a8_a_body_over_the_cap(live: Live) -> None:
    head = b"POST " + INFER + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 20000000\r\n\r\n"
    (reply,) = live.say(head, *[b"[" * 500_000] * 40)
    assert reply.code == "413"


def test_a1_two_lengths_of_json(live: Live) -> None:
    assert infer(live, framed("0", RED), more=b"Inference-Header-Content-Length: 5\r\n").code == "400"


def test_c7_a_deadline_of_a_microsecond(live: Live) -> None:
    """It is refused, or late, and no error of ours."""
    reply = infer(live, asked(parameters={"timeout": 1}))
    assert reply.code in {"429", "504"}
    live.late += reply.status == 504


def test_e6_gone_in_the_middle_of_the_json(live: Live) -> None:
    with live.connect() as conversation:
        conversation.send(b"POST " + INFER + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n" + GOOD[:20])
    live.expect_unanswered(client_closed=1)
