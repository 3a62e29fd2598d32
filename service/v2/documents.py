"""Inference requests as JSON documents: what may be in them, and what is said about those that hold something else.

Unknown members and parameters are ignored, as Triton does it: the protocol lets clients send their own.
"""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from service.errors import BadInference

# Reading numbers holds Python's lock all the while, about 80 ns each, during which no other request is served; lists
# and members of objects cost ten times as much, and a request has only as many lists as patches.
MOST_VALUES = 500_000
MOST_LISTS = 50_000
MOST_MEMBERS = 10_000
_LARGEST = 2**31 - 1

_NAMES = (
    "The inputs are `image`, or `patches` and `grid`; the outputs are `logits`, `probabilities` and, of models that "
    "were exported with it, `attention`."
)
_PARAMETERS = (
    "Parameters are an object: `binary_data_size`, `classification`, `timeout` and `max_patches` are whole numbers "
    "in their range, `binary_data`, `binary_data_output` and `allow_degraded` are true or false."
)
_LISTS = (
    "A request has 1 or 2 inputs, each with `name`, `shape` and `datatype`, and at most 3 outputs, each with `name`."
)
_SENTENCES = {
    "id": "`id` is a string of at most 256 characters.",
    "name": _NAMES,
    "datatype": "`image` is BYTES, `patches` is UINT8, `grid` is INT64.",
    "shape": f"A shape is a list of 1 to 3 whole numbers from 1 to {_LARGEST}.",
    "data": "`data` is a JSON array.",
    "parameters": _PARAMETERS,
    "inputs": _LISTS,
    "outputs": _LISTS,
}
_NO_JSON = (
    "The JSON of the request cannot be read: it is not UTF-8, not valid, has NaN, a number of too many digits or too "
    "deep a nesting, or binary data follows without the header Inference-Header-Content-Length."
)
_TOO_MANY_VALUES = (
    f"The JSON of a request may hold at most {MOST_VALUES} values, {MOST_LISTS} lists and {MOST_MEMBERS} members of "
    "objects: send tensors as binary data."
)

OutputName = Literal["logits", "probabilities", "attention"]
_Size = Annotated[int, Field(ge=1, le=_LARGEST)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class InputParameters(_Document):
    """Of one input."""

    binary_data_size: int | None = Field(default=None, ge=0, le=_LARGEST, description="bytes behind the JSON")
    shared_memory_region: Any = Field(default=None, description="refused")


class RequestInput(_Document):
    """One input tensor."""

    name: Literal["image", "patches", "grid"]
    datatype: Literal["BYTES", "UINT8", "INT64"]
    shape: list[_Size] = Field(min_length=1, max_length=3)
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(default=None, description="flat or nested; each image as a string in base64")


class OutputParameters(_Document):
    """Of one output."""

    binary_data: bool | None = Field(default=None, description="behind the JSON instead of in it")
    classification: int = Field(
        default=0, ge=0, le=_LARGEST, description="so many best classes as strings SCORE:INDEX:LABEL; 0: the tensor"
    )
    shared_memory_region: Any = Field(default=None, description="refused")


class RequestOutput(_Document):
    """One output that is wanted."""

    name: OutputName
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Document):
    """Of the whole request."""

    binary_data_output: bool = Field(default=False, description="`binary_data` of outputs that do not say")
    timeout: int = Field(
        default=0, ge=0, le=2**63 - 1, description="deadline from the end of the upload, microseconds; 0: the default"
    )
    max_patches: int | None = Field(default=None, ge=1, le=_LARGEST, description="patch budget per image")
    allow_degraded: bool = Field(default=True, description="false: never fewer patches than asked for")


class InferenceRequest(_Document):
    """What is asked for."""

    id: str = Field(default="", max_length=256, description="is in the reply again")
    parameters: RequestParameters = RequestParameters()
    inputs: list[RequestInput] = Field(min_length=1, max_length=2)
    outputs: list[RequestOutput] = Field(default=[], max_length=3, description="default: all but `attention`")


def read_document(text: bytes) -> InferenceRequest:
    """Read and check the JSON of a request.

    Raises:
        BadInference: if it is not JSON, too large, or not as the protocol has it.
    """
    # Every value but the first of a list or an object comes after a comma, every list and object has a bracket,
    # and every member a colon.
    lists = _count(text, "[") + _count(text, "{")
    if _count(text, ",") >= MOST_VALUES or lists > MOST_LISTS or _count(text, ":") > MOST_MEMBERS:
        raise BadInference(_TOO_MANY_VALUES)
    try:
        return InferenceRequest.model_validate(from_json(text, allow_inf_nan=False))
    except ValidationError as error:
        raise BadInference(_sentence_of(error)) from None
    except ValueError:
        raise BadInference(_NO_JSON) from None


def _count(text: bytes, character: str) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(character)))


def _sentence_of(error: ValidationError) -> str:
    """Names the member that is wrong, out of those that there are: other names are the client's."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    known = [part for part in first["loc"] if part in _SENTENCES]
    return _SENTENCES[str(known[-1])] if known else _LISTS
