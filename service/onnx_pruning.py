"""A serialized ONNX model without one of its outputs, and without the nodes that nothing else needs.

ONNX Runtime 1.32 computes every node whatever is fetched (`only_execute_path_to_fetches` changes nothing in its
wheels), and its optimisers keep what leads nowhere. So an output that few requests want costs the others nothing only
if the model that they run does not have it.

Read as in `service.onnx_file`, without the `onnx` package. Fields are those of ModelProto, GraphProto, NodeProto and
ValueInfoProto in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. What subgraphs take from outside is not seen:
our exports have none.
"""

from collections.abc import Iterator
from typing import TypeAlias

from service.onnx_file import read_fields

_GRAPH, _NODE, _OUTPUT = 7, 1, 12
_NAME = 1  # of an output
_INPUTS, _OUTPUTS = 1, 2  # of a node
_VARINT, _LENGTH = 0, 2

_Field: TypeAlias = tuple[int, int | memoryview]


def without_output(content: bytes, name: str) -> bytes:
    """The model without this output; `content` itself if it has none of this name or is no readable model."""
    try:
        model = list(read_fields(memoryview(content)))
        graph = [field for number, part in model if number == _GRAPH for field in _fields_of(part)]
        kept = [each for each in graph if each[0] != _OUTPUT or name not in _names(each[1], _NAME)]
    except ValueError:
        return content
    if len(kept) == len(graph):
        return content
    pruned = memoryview(b"".join(_encoded(_needed(kept))))
    return b"".join(_encoded([(number, pruned if number == _GRAPH else value) for number, value in model]))


def _needed(graph: list[_Field]) -> list[_Field]:
    """The graph without the nodes that no output depends on. Nodes come after those that they depend on."""
    needed = {name for number, output in graph if number == _OUTPUT for name in _names(output, _NAME)}
    kept = []
    for number, value in reversed(graph):
        if number == _NODE:
            if needed.isdisjoint(_names(value, _OUTPUTS)):
                continue
            needed.update(_names(value, _INPUTS))
        kept.append((number, value))
    return kept[::-1]


def _names(message: int | memoryview, number: int) -> list[str]:
    """The texts of one field."""
    return [
        str(value, "utf-8") for found, value in _fields_of(message) if found == number and isinstance(value, memoryview)
    ]


def _fields_of(message: int | memoryview) -> list[_Field]:
    if isinstance(message, int):
        raise ValueError("a number where a message belongs")  # noqa: TRY004 - of the file, not of ours
    return list(read_fields(message))


def _encoded(fields: list[_Field]) -> Iterator[bytes | memoryview]:
    """Fields as bytes; models and graphs have none but numbers and what has a length."""
    for number, value in fields:
        if isinstance(value, int):
            yield _varint(number << 3 | _VARINT) + _varint(value)
        else:
            yield _varint(number << 3 | _LENGTH) + _varint(len(value))
            yield value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found + bytes([value]))
