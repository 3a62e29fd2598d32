"""What the routes answer, as documents.

Those about images are dataclasses: what we put together ourselves needs no validation, which would cost more than the
rest of the reply.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field
from pydantic_core import to_json

from model.manifest import Preprocessing
from model.preprocess import shown
from service.engine import Model
from service.errors import Internal
from service.metrics import Metrics
from service.pipeline import Job
from service.predictions import Prediction
from service.problems import Problem, describe


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str
    digest: str = Field(description="sha256: and the SHA-256 of the model file")


@dataclass(slots=True)
class Classified:
    """The answer for one image."""

    predictions: Annotated[list[Prediction], Field(description="best first")]
    patches: Annotated[int, Field(description="patches the image was cut into: its cost")]
    grid: Annotated[tuple[int, int], Field(description="rows and columns of patches")]
    width: Annotated[int, Field(description="pixels, upright")]
    height: Annotated[int, Field(description="pixels, upright")]
    format: str
    degraded: Annotated[bool, Field(description="fewer patches than asked for, because of load")] = False


@dataclass(slots=True)
class Embedded:
    """The features of one image."""

    embedding: Annotated[list[float], Field(description="of length 1 unless `normalize=false`")]
    patches: Annotated[int, Field(description="patches the image was cut into: its cost")]
    grid: Annotated[tuple[int, int], Field(description="rows and columns of patches")]
    width: Annotated[int, Field(description="pixels, upright")]
    height: Annotated[int, Field(description="pixels, upright")]
    format: str
    degraded: Annotated[bool, Field(description="fewer patches than asked for, because of load")] = False


@dataclass(slots=True, kw_only=True)
class Explained(Classified):
    """The answer for one image, and where the model looked."""

    attention: Annotated[
        list[list[float]], Field(description="rows and columns of `grid`: the share of each patch, in sum 1")
    ]
    region: Annotated[
        tuple[float, float, float, float],
        Field(description="left, top, right, bottom of what the patches show, pixels of the upright image"),
    ]


@dataclass(slots=True)
class Failed:
    """Why one of several images has no answer."""

    error: Problem


@dataclass(slots=True)
class Timing:
    """Milliseconds by stage; of several images, the longest."""

    upload: Annotated[float, Field(description="receiving the body")]
    decode: Annotated[float, Field(description="from the file to pixels")]
    preprocess: Annotated[float, Field(description="resizing and cutting into patches")]
    queue: Annotated[float, Field(description="waiting for the engine")]
    inference: Annotated[float, Field(description="in the engine, with the whole batch")]
    total: Annotated[float, Field(description="from the request's header to the reply")]


_STAGES = tuple(field.name for field in fields(Timing))


class _Reply:
    __slots__ = ()

    def to_json(self) -> bytes:
        """The document as it is sent."""
        return to_json(self)


@dataclass(slots=True)
class ClassifyReply(_Reply):
    """One result per upload, in order."""

    model: ModelName
    results: list[Classified | Failed]
    timing_ms: Timing
    request_id: str


@dataclass(slots=True)
class EmbedReply(_Reply):
    """One result per upload, in order."""

    model: ModelName
    results: list[Embedded | Failed]
    timing_ms: Timing
    request_id: str


@dataclass(slots=True)
class ExplainReply(_Reply):
    """One result per upload, in order."""

    model: ModelName
    results: list[Explained | Failed]
    timing_ms: Timing
    request_id: str


class ModelSummary(ModelName):
    """One entry of the list of models."""

    description: str
    state: str
    provider: str
    classes: int
    max_patches: int
    newest: bool = Field(description="answers to NAME alone; every version answers to NAME@VERSION")
    default: bool = Field(description="answers requests that name no model")


class ModelList(BaseModel):
    """What is served."""

    models: list[ModelSummary]


def name_of(model: Model) -> ModelName:
    """How replies call a model."""
    return ModelName(name=model.manifest.name, version=model.manifest.version, digest=model.digest)


def summary_of(model: Model, *, newest: bool, default: bool) -> ModelSummary:
    """The entry of a model in the list."""
    manifest = model.manifest
    return ModelSummary(
        **name_of(model).model_dump(),
        description=manifest.description,
        state="ready",
        provider=model.provider,
        classes=len(manifest.labels),
        max_patches=manifest.preprocessing.max_patches,
        newest=newest,
        default=default,
    )


def result_of(job: Job) -> Classified | Failed:
    """The answer for one image, or its error."""
    sequence = job.sequence
    if job.error is not None or sequence is None:
        return failed(job)
    return Classified(
        predictions=job.predictions,
        patches=len(sequence.patches),
        grid=sequence.grid,
        width=sequence.width,
        height=sequence.height,
        format=sequence.format,
        degraded=job.degraded,
    )


def embedded(job: Job, *, normalize: bool) -> Embedded | Failed:
    """The features of one image, of length 1 or as they are, or its error."""
    features = None if job.inference is None else job.inference.found.embedding
    answer = result_of(job)
    if isinstance(answer, Failed) or features is None:
        return failed(job)
    length = float(np.linalg.norm(features.astype(np.float64))) if normalize else 1.0
    return Embedded(
        embedding=(features / (length or 1.0)).tolist(),
        patches=answer.patches,
        grid=answer.grid,
        width=answer.width,
        height=answer.height,
        format=answer.format,
        degraded=answer.degraded,
    )


def explained(job: Job, spec: Preprocessing) -> Explained | Failed:
    """The answer for one image and the attention in it, or its error."""
    shares = None if job.inference is None else job.inference.found.attention
    answer = result_of(job)
    if isinstance(answer, Failed) or shares is None:
        return failed(job)
    return Explained(
        **{each.name: getattr(answer, each.name) for each in fields(Classified)},
        attention=shares.reshape(answer.grid).tolist(),
        region=shown(answer.width, answer.height, spec, answer.grid),
    )


def failed(job: Job) -> Failed:
    """The error of one image."""
    return Failed(error=describe(job.error or Internal()))


def timing_of(jobs: Sequence[Job], upload_s: float, total_s: float) -> Timing:
    """The longest stage of all images, in milliseconds."""
    inferences = [job.inference for job in jobs if job.inference is not None]
    return Timing(
        upload=_ms(upload_s),
        decode=_ms(max([job.decode_s for job in jobs], default=0.0)),
        preprocess=_ms(max([job.preprocess_s for job in jobs], default=0.0)),
        queue=_ms(max([inference.queue_s for inference in inferences], default=0.0)),
        inference=_ms(max([inference.inference_s for inference in inferences], default=0.0)),
        total=_ms(total_s),
    )


def count_images(metrics: Metrics, jobs: Sequence[Job]) -> None:
    """Count the images of a request by how they ended."""
    for job in jobs:
        metrics.image_answered("ok" if job.error is None else job.error.code)
        if job.degraded:
            metrics.degraded.inc()


def count_stages(metrics: Metrics, timing: Timing, trace: str | None) -> None:
    """Note how long the stages of a request took; `trace` is where this can be seen."""
    for stage in _STAGES:
        metrics.stage_took(stage, getattr(timing, stage) / 1000, trace)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
