"""Values of input tensors, from JSON or from binary data. Nothing is allocated for a shape before it is compared."""

import binascii
from itertools import chain
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from service.errors import BadInference
from service.v2.body import Tensor

_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "INT64": np.dtype("<i8")}

_SHAPE = "The values of an input are not as many, or not nested, as its shape says."
_STRINGS = "Binary BYTES are one after the other a length, 4 bytes, little-endian, and so many bytes."
_BASE64 = "In JSON each image is a string in base64, without line breaks."
_NUMBERS = "`patches` are whole numbers from 0 to 255, `grid` whole numbers."


def byte_strings(tensor: Tensor) -> list[bytes]:
    """The elements of a BYTES tensor, row by row.

    Raises:
        BadInference: if they are not as many as the shape says, or cannot be read.
    """
    if tensor.raw is not None:
        return _unpack(tensor.raw, prod(tensor.shape))
    return [_from_base64(each) for each in _flat(tensor)]


def numbers(tensor: Tensor) -> NDArray[Any]:
    """The values of a UINT8 or INT64 tensor in its shape; those of binary data where they are, without a copy.

    Raises:
        BadInference: if they are not as many as the shape says, or no such numbers.
    """
    dtype = _DTYPES[tensor.datatype]
    if tensor.raw is None:
        return _from_values(_flat(tensor), dtype).reshape(tensor.shape)
    if len(tensor.raw) != prod(tensor.shape) * dtype.itemsize:
        raise BadInference(_SHAPE)
    return np.frombuffer(tensor.raw, dtype).reshape(tensor.shape)


def _unpack(raw: memoryview, count: int) -> list[bytes]:
    found: list[bytes] = []
    start = 0
    while start + 4 <= len(raw) and len(found) < count:
        end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        found.append(bytes(raw[start + 4 : end]))
        start = end
    if start != len(raw) or len(found) != count:
        raise BadInference(_STRINGS)
    return found


def _flat(tensor: Tensor) -> list[Any]:
    """The values row by row; they came flat, or nested exactly as the shape says."""
    data = tensor.data or []
    shape = tensor.shape if data and isinstance(data[0], list) else (prod(tensor.shape),)
    rows: list[Any] = [data]
    for size in shape:
        if any(not isinstance(row, list) or len(row) != size for row in rows):
            raise BadInference(_SHAPE)
        rows = list(chain.from_iterable(rows))
    return rows


def _from_base64(text: Any) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True) if isinstance(text, str) else _refuse(_BASE64)
    except ValueError:
        return _refuse(_BASE64)


def _from_values(values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if set(map(type, values)) != {int}:  # neither a float that happens to be whole nor true
        _refuse(_NUMBERS)
    try:
        return np.array(values, dtype)
    except OverflowError:
        return _refuse(_NUMBERS)


def _refuse(sentence: str) -> NoReturn:
    raise BadInference(sentence) from None
