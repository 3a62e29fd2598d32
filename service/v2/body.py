"""The body of an inference request: one JSON document and, behind it, the binary data of its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import BadInference, NotOffered
from service.v2.documents import InferenceRequest, RequestInput, read_document

LENGTH_HEADER = "inference-header-content-length"

_HEADER = "The header Inference-Header-Content-Length is the number of bytes of JSON at the start of the body."
_TWICE = "An input or output is named twice."
_EITHER = "Each input has its values either as `data` in the JSON or, with the parameter `binary_data_size`, behind it."
_BINARY_LENGTH = "The `binary_data_size` of all inputs together is not the number of bytes behind the JSON."
NO_SHARED_MEMORY = "Shared memory is not offered: send tensors in the request, best as binary data."


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One input.

    Attributes:
        datatype: as the protocol names it.
        shape: sizes of at least 1 as they were declared, not yet compared with the values.
        data: values from JSON, flat or nested; None if they are in `raw`.
        raw: bytes of the request's body; None if they are in `data`.
    """

    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | None
    raw: memoryview | None


def json_length(headers: Mapping[str, str], body_bytes: int) -> int:
    """How many bytes of a body are JSON.

    Raises:
        BadInference: if the header that says so is no such number.
    """
    text = headers.get(LENGTH_HEADER)
    if text is None:
        return body_bytes
    if not (text.isascii() and text.isdecimal()) or len(text) > 18 or int(text) > body_bytes:
        raise BadInference(_HEADER)
    return int(text)


def read_request(body: bytes, length: int) -> tuple[InferenceRequest, dict[str, Tensor]]:
    """The document, which is the first `length` bytes, and the inputs by name.

    Where nothing is JSON, the whole body is one image.

    Raises:
        BadInference: if the parts do not fit together.
    """
    if body and not length:
        return _RAW, {"image": Tensor("BYTES", (1,), None, memoryview(len(body).to_bytes(4, "little") + body))}
    request = read_document(body[:length])
    return request, _tensors(request.inputs, memoryview(body)[length:])


def _tensors(inputs: list[RequestInput], binary: memoryview) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    start = 0
    for each in inputs:
        size = each.parameters.binary_data_size
        if each.parameters.shared_memory_region is not None:
            raise NotOffered(NO_SHARED_MEMORY)
        if each.name in found:
            raise BadInference(_TWICE)
        if (size is None) == (each.data is None):
            raise BadInference(_EITHER)
        raw = None if size is None else binary[start : start + size]
        start += size or 0
        found[each.name] = Tensor(each.datatype, tuple(each.shape), each.data, raw)
    if start != len(binary):
        raise BadInference(_BINARY_LENGTH)
    return found


_RAW = InferenceRequest(inputs=[RequestInput(name="image", datatype="BYTES", shape=[1])])
