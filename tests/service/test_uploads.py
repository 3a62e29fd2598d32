import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from service.errors import (
    BadMultipart,
    BadRequest,
    BodyTooLarge,
    ClientClosed,
    RequestError,
    UnsupportedMediaType,
    UploadTimeout,
)
from service.settings import UploadSettings
from service.uploads import read_uploads, time_allowed_s

pytestmark = pytest.mark.anyio

FORM = {"content-type": "multipart/form-data; boundary=b"}


def part(content: bytes, name: str = "file", extra: str = '; filename="x.jpg"') -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


class Account:
    def __init__(self) -> None:
        self.taken = 0

    def take(self, count: int) -> None:
        self.taken += count


class Client:
    """Sends a body in pieces, then waits for ever, or leaves."""

    def __init__(self, body: bytes, piece: int = 1 << 20, *, unfinished: bool = False, leaves: bool = False) -> None:
        self.pieces = [body[at : at + piece] for at in range(0, len(body), piece)] or [b""]
        self.unfinished = unfinished
        self.leaves = leaves
        self.sent = 0

    async def receive(self) -> Mapping[str, Any]:
        if not self.pieces:
            if self.leaves:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
        chunk = self.pieces.pop(0)
        self.sent += len(chunk)
        more = bool(self.pieces) or self.unfinished or self.leaves
        return {"type": "http.request", "body": chunk, "more_body": more}


async def read(client: Client, headers: dict[str, str] | None = None, **settings: Any) -> list[bytes]:
    loop = asyncio.get_running_loop()
    return await read_uploads(
        FORM if headers is None else headers,
        client.receive,
        UploadSettings(**settings),
        ("JPEG",),
        Account(),
        loop.time,
    )


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1 << 20])
async def test_files_come_in_order_however_the_body_is_cut(piece: int) -> None:
    body = form(part(b"one\r\n--"), part(b"ignored", "note", ""), part(b""), part(b"\r\n--bb\r\nthree"))
    assert await read(Client(body, piece)) == [b"one\r\n--", b"", b"\r\n--bb\r\nthree"]


async def test_a_raw_image_is_one_upload() -> None:
    assert await read(Client(b"abcdef", 2), {"content-type": "image/jpeg"}) == [b"abcdef"]


@pytest.mark.parametrize(
    "filename",
    ["../../etc/passwd", "a\x00b", "\u202egpj.exe", "\U0001f600.jpg", "", "x" * 3900],
)
async def test_whatever_a_file_is_called_is_dropped(filename: str) -> None:
    assert await read(Client(form(part(b"x", extra=f'; filename="{filename}"')))) == [b"x"]


async def test_a_name_that_is_no_utf8_is_dropped() -> None:
    body = form(b'--b\r\nContent-Disposition: form-data; name="file"; filename="\xff\xfe"\r\n\r\nx\r\n')
    assert await read(Client(body)) == [b"x"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"random bytes",
        form(),
        form(part(b"x", "other")),
        part(b"x"),  # no closing boundary
        part(b"x") + part(b"y"),
        (part(b"x") + part(b"y" * 100))[:-50],
        form(part(b"x"))[:-4],
        form(part(b"x")).replace(b"--b", b"--c"),
        form(*[part(b"x")] * 17),
        form(part(b"x"), *[part(b"x", "note", "")] * 5),
        form(part(b"x"), part(b"y" * 70_000, "note", "")),
        form(b"--b\r\n\r\nno headers\r\n"),
        form(b'--b\r\nContent-Disposition: attachment; name="file"\r\n\r\nx\r\n'),
        form(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n"),
        form(b"--b\r\n" + b"X-A: b\r\n" * 9 + b'Content-Disposition: form-data; name="file"\r\n\r\nx\r\n'),
        form(b"--b\r\nX-A: " + b"a" * 5000 + b'\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'),
        form(b"--b\r\nX A: b\r\n\r\nx\r\n"),
        b"--b\r\n\r\n\r\n" * 100_000,
        form(part(b"\r\n--bx" * 40)),
        form(part(b"\r\n--b-x" * 40)),
    ],
)
async def test_a_malformed_form_is_bad_multipart(body: bytes) -> None:
    with pytest.raises(BadMultipart):
        await read(Client(body))


async def test_part_max_files_plus_one_ends_the_reading() -> None:
    client = Client(form(*[part(b"x")] * 1001), 100)
    with pytest.raises(BadMultipart):
        await read(client)
    assert client.sent < 2000


async def test_a_header_of_semicolons_is_not_taken_apart() -> None:
    """The library that does takes the square of them; a raw image needs none of it."""
    many = '; a="' + ";" * 100
    with pytest.raises(BadMultipart):
        await read(Client(form(part(b"x"))), {"content-type": f"multipart/form-data; boundary=b{many}"})
    with pytest.raises(BadMultipart):
        await read(Client(form(part(b"x", extra=many))), FORM)
    assert await read(Client(b"x"), {"content-type": f"image/png{many}"}) == [b"x"]
    assert await read(Client(form(part(b"x", extra='; filename="a;b;c.png"'))), FORM) == [b"x"]


@pytest.mark.parametrize("boundary", ["", "x" * 71, "x" * 300])
async def test_a_boundary_is_needed_and_bounded(boundary: str) -> None:
    with pytest.raises(BadMultipart):
        await read(Client(form(part(b"x"))), {"content-type": f"multipart/form-data; boundary={boundary}"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "application/json"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/mixed; boundary=b"},
        {"content-type": "image/png", "content-encoding": "gzip"},
        FORM | {"content-encoding": "br"},
    ],
)
async def test_other_types_are_refused_unread(headers: dict[str, str]) -> None:
    client = Client(b"x")
    with pytest.raises(UnsupportedMediaType):
        await read(client, headers)
    assert client.sent == 0


@pytest.mark.parametrize("declared", ["1001", "99999999999", "9" * 400])
async def test_a_declared_length_over_the_limit_is_refused_unread(declared: str) -> None:
    client = Client(b"x")
    with pytest.raises(BodyTooLarge):
        await read(client, FORM | {"content-length": declared}, max_body_bytes=1000)
    assert client.sent == 0


async def test_a_declared_length_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadRequest):
        await read(Client(b"x"), FORM | {"content-length": "-1"})


@pytest.mark.parametrize("headers", [FORM, {"content-type": "image/png"}])
async def test_a_counted_length_over_the_limit_ends_the_reading(headers: dict[str, str]) -> None:
    client = Client(part(b"x" * 100_000), 100)
    with pytest.raises(BodyTooLarge) as refusal:
        await read(client, headers, max_body_bytes=1000)
    assert client.sent <= 1100
    assert "1000 bytes" in refusal.value.detail


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert await read(Client(b"x" * 1000), {"content-type": "image/png"}, max_body_bytes=1000) == [b"x" * 1000]


async def test_a_silent_client_is_given_up() -> None:
    with pytest.raises(UploadTimeout):
        await read(Client(b"--b", unfinished=True), upload_grace_s=0.02)


async def test_a_client_that_leaves_is_no_error_of_ours() -> None:
    with pytest.raises(ClientClosed):
        await read(Client(part(b"x"), leaves=True))


async def test_bytes_are_counted_as_they_come() -> None:
    account = Account()
    body = form(part(b"x" * 100))
    loop = asyncio.get_running_loop()
    await read_uploads(FORM, Client(body, 10).receive, UploadSettings(), (), account, loop.time)
    assert account.taken == len(body)


async def test_an_account_that_refuses_ends_the_reading() -> None:
    class Full:
        def take(self, count: int) -> None:
            raise RequestError

    client = Client(form(part(b"x" * 1000)), 10)
    with pytest.raises(RequestError):
        await read_uploads(FORM, client.receive, UploadSettings(), (), Full(), asyncio.get_running_loop().time)
    assert client.sent == 10


def test_time_is_earned_by_bytes_up_to_the_deadline() -> None:
    settings = UploadSettings(body_timeout_s=15, upload_grace_s=2, min_upload_bytes_per_s=1000)
    assert [time_allowed_s(count, settings) for count in (0, 3000, 10**9)] == [2, 5, 15]
