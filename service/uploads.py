"""Request bodies: from ASGI messages to bytes, such as those of 1..max_files images, all in memory, all bounded.

Nothing goes to disk and nothing of what a client calls its files is kept. A body that is too large, too slow or
malformed ends at the first byte that shows it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Scope

from service.errors import BadMultipart, BadRequest, BodyTooLarge, ClientClosed, UnsupportedMediaType, UploadTimeout
from service.settings import UploadSettings

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
_MAX_BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
_MAX_OPTIONS = 64  # of a header's value: name, file name, boundary, and what stands between quotes
_LINES_OF_CONTENT = 16  # that begin as a boundary does; the same section forbids them all


class Account(Protocol):
    """Where held bytes are counted."""

    def take(self, count: int) -> None:
        """Count `count` more bytes, or raise."""


async def read_uploads(
    headers: Mapping[str, str],
    receive: Receive,
    settings: UploadSettings,
    formats: tuple[str, ...],
    account: Account,
    clock: Callable[[], float],
) -> list[bytes]:
    """Read the images of one request, in order.

    Args:
        headers: of the request, names in lower case.
        receive: the ASGI channel.
        settings: the limits.
        formats: accepted image formats, for the error's sentence.
        account: where the bytes are counted; the caller gives them back.
        clock: monotonic, seconds.

    Raises:
        RequestError: 400, 408, 413, 415, 429 or 499.
    """
    boundary = _check_headers(headers, settings, formats)
    chunks = _read_body(receive, settings, account, clock)
    if boundary is None:
        return [b"".join([chunk async for chunk in chunks])]
    form = _Form(boundary, settings)
    async for chunk in chunks:
        form.feed(chunk)
    return form.finish()


async def read_whole(
    headers: Mapping[str, str],
    receive: Receive,
    settings: UploadSettings,
    formats: tuple[str, ...],
    account: Account,
    clock: Callable[[], float],
) -> bytes:
    """Read a body of any type, as it is; see `read_uploads`.

    Raises:
        RequestError: 400, 408, 413, 415, 429 or 499.
    """
    _check_encoding(headers, formats)
    _check_length(headers, settings)
    return b"".join([chunk async for chunk in _read_body(receive, settings, account, clock)])


def body_headers(scope: Scope, names: frozenset[bytes]) -> dict[str, str]:
    """Those headers of a request that decide how its body is read.

    Raises:
        BadRequest: if one of them comes twice.
    """
    found = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"] if name in names]
    headers = dict(found)
    if len(headers) < len(found):
        raise BadRequest
    return headers


def time_allowed_s(received_bytes: int, settings: UploadSettings) -> float:
    """How long after its start a body may take to grow beyond `received_bytes`."""
    return min(settings.body_timeout_s, settings.upload_grace_s + received_bytes / settings.min_upload_bytes_per_s)


def _check_headers(headers: Mapping[str, str], settings: UploadSettings, formats: tuple[str, ...]) -> bytes | None:
    """What the header tells before anything is read: the boundary of a multipart body, None for one raw image."""
    _check_encoding(headers, formats)
    value = headers.get("content-type", "")
    kind = value.partition(";")[0].strip(" \t").lower()
    if kind != "multipart/form-data" and not kind.startswith("image/"):
        raise UnsupportedMediaType(formats=", ".join(formats))
    _check_length(headers, settings)
    if kind != "multipart/form-data":
        return None
    boundary = _options_of(value, settings)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY_BYTES:
        raise _bad_multipart(settings)
    return boundary


def _check_encoding(headers: Mapping[str, str], formats: tuple[str, ...]) -> None:
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType(formats=", ".join(formats))


def _check_length(headers: Mapping[str, str], settings: UploadSettings) -> None:
    declared = headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdecimal()):
        raise BadRequest
    if len(declared) > 18 or int(declared) > settings.max_body_bytes:
        raise BodyTooLarge(max_body_bytes=settings.max_body_bytes)


async def _read_body(
    receive: Receive, settings: UploadSettings, account: Account, clock: Callable[[], float]
) -> AsyncIterator[bytes]:
    """The chunks of a body, each within the time that the chunks before it have earned."""
    started, received, more = clock(), 0, True
    while more:
        try:
            async with asyncio.timeout(started + time_allowed_s(received, settings) - clock()):
                message = await receive()
        except TimeoutError:
            raise UploadTimeout from None
        if message["type"] == "http.disconnect":
            raise ClientClosed
        chunk, more = message.get("body", b""), message.get("more_body", False)
        received += len(chunk)
        if received > settings.max_body_bytes:
            raise BodyTooLarge(max_body_bytes=settings.max_body_bytes)
        account.take(len(chunk))
        if chunk:
            yield chunk


def _bad_multipart(settings: UploadSettings) -> BadMultipart:
    return BadMultipart(max_files=settings.max_files, max_fields=settings.max_fields)


def _options_of(value: str, settings: UploadSettings) -> tuple[bytes, dict[bytes, bytes]]:
    """What `Content-Type` or `Content-Disposition` says, and its options by name.

    Splitting takes time by the square of the semicolons: 29 kB of them take the event loop 38 ms.
    """
    if value.count(";") > _MAX_OPTIONS:
        raise _bad_multipart(settings)
    return parse_options_header(value)


class _Form:
    """A multipart/form-data body: parts named `file` are kept, the content of any other part is counted and dropped."""

    def __init__(self, boundary: bytes, settings: UploadSettings) -> None:
        self._settings = settings
        # The parser looks for these lines, and walks on byte by byte behind each that turns out to be none.
        self._line = b"\r\n--" + boundary
        self._lines_left = settings.max_files + settings.max_fields + _LINES_OF_CONTENT
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._choose,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._close,
            },
            max_header_count=settings.max_part_headers,
            max_header_size=settings.max_part_header_bytes,
        )
        self._files: list[bytes] = []
        self._fields = 0
        self._closed = False
        self._begin()

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes."""
        self._lines_left -= chunk.count(self._line)
        if self._lines_left < 0:
            raise _bad_multipart(self._settings)
        try:
            self._parser.write(chunk)
        except FormParserError:  # its text quotes the body
            raise _bad_multipart(self._settings) from None

    def finish(self) -> list[bytes]:
        """The files, once the closing boundary has been seen."""
        if not self._closed or not self._files:
            raise _bad_multipart(self._settings)
        return self._files

    def _begin(self) -> None:
        self._name = self._value = b""
        self._disposition = b""
        self._is_file = False
        self._chunks: list[bytes] = []
        self._field_bytes = 0

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _choose(self) -> None:
        kind, options = _options_of(self._disposition.decode("latin-1"), self._settings)
        if kind != b"form-data" or b"name" not in options:
            raise _bad_multipart(self._settings)
        self._is_file = options[b"name"] == b"file"
        self._fields += not self._is_file
        if len(self._files) + self._is_file > self._settings.max_files or self._fields > self._settings.max_fields:
            raise _bad_multipart(self._settings)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._chunks.append(data[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > self._settings.max_field_bytes:
            raise _bad_multipart(self._settings)

    def _end(self) -> None:
        if self._is_file:
            self._files.append(b"".join(self._chunks))
            self._chunks = []

    def _close(self) -> None:
        self._closed = True
