"""Seeds for fuzzing, made in code, and what must hold for any bytes made from them."""

import asyncio
from collections.abc import Mapping
from typing import Any

from hostile_images import CASES, encode, picture
from tiny_artifact import MANIFEST

from model.headers import ImageError, ImageLimits
from model.preprocess import preprocess
from service.errors import RequestError
from service.settings import UploadSettings
from service.uploads import read_uploads

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# Small enough that no input takes long: the limits themselves have tests of their own.
LIMITS = ImageLimits(max_pixels=1_000_000, max_scan_pixels=20_000_000, formats=FORMATS)
BOUNDARY = b"edge"


def images(most_bytes: int = 20_000) -> list[bytes]:
    """A file of every format, and the catalogue of hostile ones."""
    good = [encode(picture(), name) for name in FORMATS] + [encode(picture(), "JPEG", progressive=True)]
    return [data for data in [*good, *(case.build() for case in CASES)] if len(data) <= most_bytes]


def forms() -> list[bytes]:
    """Multipart bodies, whole and cut off."""
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="x"\r\nContent-Type: image/png\r\n\r\n'
    field = b'--edge\r\nContent-Disposition: form-data; name="other"\r\n\r\nvalue\r\n'
    whole = head + b"content\r\n" + field + b"--edge--\r\n"
    return [whole, head * 3 + whole, whole[: len(whole) // 2], b"--edge--\r\n", b"preamble\r\n" + whole + b"epilogue"]


def decode(data: bytes) -> None:
    """Only an `ImageError` may escape."""
    try:
        sequence = preprocess(data, MANIFEST.preprocessing, LIMITS)
    except ImageError:
        return
    rows, columns = sequence.grid
    assert sequence.patches.shape == (rows * columns, MANIFEST.preprocessing.patch_dim)


class _Account:
    def take(self, count: int) -> None:
        """Anything goes."""


def read_form(body: bytes, chunk_bytes: int) -> None:
    """Only a `RequestError` below 500 may escape."""
    pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)] or [b""]
    messages = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]

    async def receive() -> Mapping[str, Any]:
        return messages.pop(0)

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    settings = UploadSettings()
    try:
        files = asyncio.run(read_uploads(headers, receive, settings, FORMATS, _Account(), lambda: 0.0))
    except RequestError as error:
        if error.status >= 500:
            raise
        return
    assert 1 <= len(files) <= settings.max_files
