"""What a decode worker and its owner say to each other: one datagram to an image, one back. Pixels are never in them.

A worker may be in the hands of a hostile file, so what it says is numbers of fixed size and nothing else is believed.
"""

import enum
import struct
from dataclasses import dataclass
from typing import NamedTuple

from model.headers import ImageHeader
from model.manifest import Preprocessing

READY = b"ready"
_REQUEST = struct.Struct("<Q4IB8s")
_REPLY = struct.Struct("<Bd")
_MOST_TRACE_BYTES = 8192
MAX_DATAGRAM_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs to know; the first datagram, pickled by its owner.

    Attributes:
        spec: of the model.
        formats: that may come.
        exact: see `model.preprocess.preprocess`.
        patch_bytes: the shared memory begins with room for the patches of any image; the file comes after it.
        file_bytes: room for the file.
        memory_bytes: address space that the worker may take beyond what it has when it is ready.
        timeout_s: for one image, seconds.
    """

    spec: Preprocessing
    formats: tuple[str, ...]
    exact: bool
    patch_bytes: int
    file_bytes: int
    memory_bytes: int
    timeout_s: float


class Ending(enum.IntEnum):
    """How an image left the worker."""

    DECODED = 0
    INVALID = 1
    TOO_LARGE = 2
    OUT_OF_MEMORY = 3
    BUG = 4  # the text of the exception follows


class Request(NamedTuple):
    """One image: the length of its file in the shared memory, bytes, and what is known about it."""

    length: int
    header: ImageHeader
    grid: tuple[int, int]


class Reply(NamedTuple):
    """The end of one image."""

    ending: Ending
    preprocess_s: float = 0.0
    trace: str = ""


def pack_request(request: Request) -> bytes:
    """A request as bytes."""
    header = request.header
    sizes = header.width, header.height, *request.grid
    return _REQUEST.pack(request.length, *sizes, header.orientation, header.format.encode())


def unpack_request(datagram: bytes) -> Request:
    """A request from its bytes."""
    length, width, height, rows, columns, orientation, name = _REQUEST.unpack(datagram)
    header = ImageHeader(name.rstrip(b"\0").decode(), width, height, orientation)
    return Request(length, header, (rows, columns))


def pack_reply(reply: Reply) -> bytes:
    """A reply as bytes."""
    return _REPLY.pack(reply.ending, reply.preprocess_s) + reply.trace.encode()[-_MOST_TRACE_BYTES:]


def unpack_reply(datagram: bytes) -> Reply:
    """A reply from its bytes.

    Raises:
        ValueError: if it is none.
    """
    if len(datagram) < _REPLY.size:
        raise ValueError(f"{len(datagram)} bytes are no reply")
    ending, preprocess_s = _REPLY.unpack_from(datagram)
    return Reply(Ending(ending), preprocess_s, datagram[_REPLY.size :].decode(errors="replace"))
