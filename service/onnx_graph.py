"""What the graph of a serialized ONNX model holds, read as `service.onnx_file` does, without the `onnx` package.

Weights are not copied: their sizes follow from their shapes. Fields are those of ModelProto, GraphProto, NodeProto,
TensorProto, ValueInfoProto and TypeProto in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from service.onnx_file import Content, read_fields, read_varint

# TensorProto.DataType: the number, the name, bits of one value.
_TYPES = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    16: ("bfloat16", 16),
    21: ("uint4", 4),
    22: ("int4", 4),
}
_Field: TypeAlias = int | memoryview


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor; `bytes` is 0 for types whose size is not known here."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output; an axis without a fixed length has a name, or `?`."""

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """What the file says of its graph.

    Attributes:
        ir_version: of the file format.
        producer: what wrote it, with its version.
        opsets: version of the operators of each domain; the standard one is `ai.onnx`.
        operators: how many nodes of each kind, subgraphs not included; of other domains as `domain.Operator`.
        weights: in the order of the file.
        inputs, outputs: of the model.
    """

    ir_version: int
    producer: str
    opsets: dict[str, int]
    operators: Counter[str]
    weights: tuple[Weight, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def read_graph(content: Content) -> Graph:
    """Read the graph.

    Raises:
        ValueError: if this is no ONNX model.
    """
    model = list(read_fields(memoryview(content)))
    graph = [field for part in _messages(model, 7) for field in read_fields(part)]
    if not _messages(graph, 1):
        raise ValueError("no graph with a node in it")
    texts = [_text(model, 2), _text(model, 3)]
    return Graph(
        ir_version=_number(model, 1),
        producer=" ".join(filter(None, texts)),
        opsets={_text(each, 1) or "ai.onnx": _number(each, 2) for each in _read_all(model, 8)},
        operators=Counter(_operator(each) for each in _read_all(graph, 1)),
        weights=tuple(_weight(each) for each in _read_all(graph, 5)),
        inputs=tuple(_value(each) for each in _read_all(graph, 11)),
        outputs=tuple(_value(each) for each in _read_all(graph, 12)),
    )


def _operator(node: list[tuple[int, _Field]]) -> str:
    domain = _text(node, 7)
    return _text(node, 4) if domain in {"", "ai.onnx"} else f"{domain}.{_text(node, 4)}"


def _weight(tensor: list[tuple[int, _Field]]) -> Weight:
    name, bits = _TYPES.get(_number(tensor, 2), (f"type {_number(tensor, 2)}", 0))
    shape = tuple(_numbers(tensor, 1))
    return Weight(_text(tensor, 8), name, shape, -(-prod(shape) * bits // 8))


def _value(info: list[tuple[int, _Field]]) -> Value:
    tensor = _within(_within(info, 2), 1)
    axes = [_text(axis, 2) or _number(axis, 1, missing=-1) for axis in _read_all(_within(tensor, 2), 1)]
    known = tuple("?" if axis == -1 else axis for axis in axes)
    kind = _number(tensor, 1)
    return Value(_text(info, 1), _TYPES.get(kind, (f"type {kind}", 0))[0], known)


def _messages(fields: list[tuple[int, _Field]], number: int) -> list[memoryview]:
    return [value for found, value in fields if found == number and isinstance(value, memoryview)]


def _read_all(fields: list[tuple[int, _Field]], number: int) -> Iterator[list[tuple[int, _Field]]]:
    return (list(read_fields(message)) for message in _messages(fields, number))


def _within(fields: list[tuple[int, _Field]], number: int) -> list[tuple[int, _Field]]:
    return next(_read_all(fields, number), [])


def _text(fields: list[tuple[int, _Field]], number: int) -> str:
    return next((bytes(message).decode(errors="replace") for message in _messages(fields, number)), "")


def _number(fields: list[tuple[int, _Field]], number: int, missing: int = 0) -> int:
    return next((value for found, value in fields if found == number and isinstance(value, int)), missing)


def _numbers(fields: list[tuple[int, _Field]], number: int) -> Iterator[int]:
    """A repeated number, each in a field of its own or all packed into one."""
    for found, value in fields:
        if found != number:
            continue
        if isinstance(value, int):
            yield value
            continue
        at = 0
        while at < len(value):
            each, at = read_varint(value, at)
            yield each
