"""What the protocol says of the service and of its models, as documents."""

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, Field

from service.extras import ATTENTION
from service.models import Models, Served
from service.v2.outputs import offered

EXTENSIONS = ["binary_tensor_data", "classification", "model_repository(index)"]


class ServerMetadata(BaseModel):
    """The service."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output; -1 in a shape is a size that may vary."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """One model."""

    name: str
    versions: list[str] = Field(description="newest first")
    platform: str
    inputs: list[TensorMetadata] = Field(description="`image` alone, or `patches` and `grid`")
    outputs: list[TensorMetadata]


class IndexEntry(BaseModel):
    """One version of a model in the index of the repository."""

    name: str
    version: str
    state: str
    reason: str


class ResponseOutput(BaseModel):
    """One output tensor."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = Field(default={}, description="`binary_data_size`: bytes behind the JSON")
    data: list[Any] | None = Field(default=None, description="row by row")


class InferenceReply(BaseModel):
    """The outputs that were asked for."""

    model_name: str
    model_version: str
    id: str = Field(default="", description="that of the request")
    parameters: dict[str, Any] = Field(default={}, description="`degraded`: fewer patches were used because of load")
    outputs: list[ResponseOutput]


def server_metadata() -> ServerMetadata:
    """The service itself."""
    return ServerMetadata(name="patchserve", version=version("patchserve"), extensions=EXTENSIONS)


def model_metadata(served: Served, models: Models) -> ModelMetadata:
    """A model, and which versions of it there are."""
    manifest = served.manifest
    classes = len(manifest.labels)
    return ModelMetadata(
        name=manifest.name,
        versions=[each.manifest.version for each in models.all() if each.manifest.name == manifest.name],
        platform="onnxruntime_onnx",
        inputs=[
            TensorMetadata(name="image", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="patches", datatype="UINT8", shape=[-1, -1, manifest.preprocessing.patch_dim]),
            TensorMetadata(name="grid", datatype="INT64", shape=[-1, 2]),
        ],
        outputs=[
            TensorMetadata(name=name, datatype="FP32", shape=[-1, -1 if name == ATTENTION else classes])
            for name in offered(has_logits=served.behind.has_logits, explain=manifest.explain)
        ],
    )


def repository_index(models: Models) -> list[IndexEntry]:
    """Every version of every model; what is served is ready."""
    return [
        IndexEntry(name=each.manifest.name, version=each.manifest.version, state="READY", reason="")
        for each in models.all()
    ]
