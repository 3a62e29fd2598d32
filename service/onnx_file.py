"""What a serialized ONNX model says of itself, read without the `onnx` package, which serving does not install.

Only the outermost message is walked (the graph is skipped as one field): microseconds, whatever the file's size.
Fields: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto (ModelProto, OperatorSetIdProto,
StringStringEntryProto); wire format: https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from typing import TypeAlias

Content: TypeAlias = bytes | memoryview

_OPSET_IMPORT, _METADATA_PROPS = 8, 14
_VARINT, _I64, _LENGTH, _I32 = 0, 1, 2, 5


def opset_of(content: Content) -> int | None:
    """Version of the standard operators; None if this is no readable model or uses none."""
    for fields in _messages(content, _OPSET_IMPORT):
        domain, version = fields.get(1, b""), fields.get(2)
        if domain in (b"", b"ai.onnx") and isinstance(version, int):
            return version
    return None


def metadata_of(content: Content, key: str) -> str | None:
    """The text under this key of `metadata_props`; None if there is none or this is no readable model."""
    for fields in _messages(content, _METADATA_PROPS):
        name, value = fields.get(1), fields.get(2)
        if isinstance(name, memoryview) and isinstance(value, memoryview) and name == key.encode():
            return bytes(value).decode(errors="replace")
    return None


def _messages(content: Content, number: int) -> Iterator[dict[int, int | memoryview]]:
    """The fields of each message with this number, up to where the bytes make no sense any more."""
    try:
        for found, value in read_fields(memoryview(content)):
            if found == number and isinstance(value, memoryview):
                yield dict(read_fields(value))
    except ValueError:
        return


def read_fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field.

    Raises:
        ValueError: if the bytes end early or are of no known wire type.
    """
    at = 0
    while at < len(content):
        key, at = read_varint(content, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = read_varint(content, at)
            yield key >> 3, value
            continue
        if kind == _LENGTH:
            size, at = read_varint(content, at)
        elif kind in {_I64, _I32}:
            size = 8 if kind == _I64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(content):
            raise ValueError("a field ends after the file")
        yield key >> 3, content[at : at + size]
        at += size


def read_varint(content: memoryview, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; returns the number and where the next field begins."""
    value = 0
    for place, byte in enumerate(content[at : at + 10]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number has no end")
