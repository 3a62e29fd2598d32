"""What a client asks: address, parameters, body, and how the answer is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict

from service.calls.answers import (
    AnswerT,
    Classification,
    Embedding,
    Explanation,
    ModelInfo,
    read_classification,
    read_embedding,
    read_explanation,
    read_models,
    read_nothing,
)
from service.calls.pictures import media_type_of


class ImageOptions(TypedDict, total=False):
    """What may be asked for one image. Left out or None: the service's default.

    `model`: NAME or NAME@VERSION. `max_patches`: patch budget, fewer is faster and less accurate. `timeout_ms`:
    deadline from the end of the upload. `allow_degraded`: False for never fewer patches because of load.
    """

    model: str | None
    max_patches: int | None
    timeout_ms: int | None
    allow_degraded: bool | None


class Options(ImageOptions, total=False):
    """Where there are labels. `k`: how many."""

    k: int | None


class EmbedOptions(ImageOptions, total=False):
    """Where there are features. `normalize`: False for those of the model, not of length 1."""

    normalize: bool | None


@dataclass(frozen=True, slots=True)
class Question(Generic[AnswerT]):
    """One request, and how its answer is read from the JSON document."""

    method: str
    path: str
    read: Callable[[Any], AnswerT]
    params: Mapping[str, str | int | bool] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None


READY: Question[None] = Question("GET", "/readyz", read_nothing)
MODELS: Question[list[ModelInfo]] = Question("GET", "/models", read_models)


def classification_of(data: bytes, options: Options) -> Question[Classification]:
    """Ask for one image, as a raw body: no multipart to build or to take apart.

    Raises:
        TypeError: if there is no such option.
    """
    return _about("/classify", read_classification, data, options, Options)


def explanation_of(data: bytes, options: Options) -> Question[Explanation]:
    """As `classification_of`, for where the model looks too."""
    return _about("/explain", read_explanation, data, options, Options)


def embedding_of(data: bytes, options: EmbedOptions) -> Question[Embedding]:
    """As `classification_of`, for features."""
    return _about("/embed", read_embedding, data, options, EmbedOptions)


def check_many(concurrency: int, options: Options) -> None:
    """What would make every image of many fail, before the first is sent.

    Raises:
        ValueError: if nothing may be under way.
        TypeError: if there is no such option.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    _check_names(options, Options)


def _about(
    path: str, read: Callable[[Any], AnswerT], data: bytes, options: ImageOptions, known: type[ImageOptions]
) -> Question[AnswerT]:
    _check_names(options, known)
    params: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    return Question("POST", path, read, params, {"Content-Type": media_type_of(data)}, data)


def _check_names(options: ImageOptions, known: type[ImageOptions]) -> None:
    if unknown := options.keys() - known.__annotations__.keys():
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(known.__annotations__)}")
