"""Whether a serialized ONNX model keeps weights in other files.

ONNX Runtime reads such files even of a model that it is given as bytes: it looks for them in the working folder. Fields
are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from service.onnx_file import Content, read_fields

# Of each message the fields that lead to tensors, and the message that each of them holds.
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def keeps_weights_elsewhere(content: Content) -> bool:
    """Whether any tensor of the model, however deep, names another file.

    Raises:
        ValueError: if this is no ONNX model.
    """
    waiting = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        for field, value in read_fields(message):
            if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)):
                return True
            if field in _PARTS[kind] and isinstance(value, memoryview):
                waiting.append((_PARTS[kind][field], value))
    return False
