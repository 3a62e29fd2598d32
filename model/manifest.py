"""The manifest: what an artifact says of itself, as one JSON document.

An artifact is a single `.onnx` file; `metadata_props["patchserve"]` holds this document, so that weights, labels and
preprocessing can never be separated. Standard library only: serving reads it without torch.

The JSON document is flat; in Python the fields that decide how an image becomes patches are grouped in
`Preprocessing`, because training, evaluation and export need them before there is an artifact.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal, get_args

SCHEMA = 1
METADATA_KEY = "patchserve"
PATCH_ORDER = "row,col,channel"

Resize = Literal["crop", "crop-floor", "squash", "aspect"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]
PositionInterpolation = Literal["bicubic", "bicubic-antialias", "bicubic-align-corners", "bilinear-align-corners"]
Precision = Literal["float32", "float16", "int8"]
Golden = tuple[tuple[int, float], ...]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names every wrong field, what it holds and what it may hold."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes a sequence of patches.

    Attributes:
        patch_size: side P of a square patch, pixels.
        native_grid: (rows, columns) of the position table the model was trained on.
        max_patches: the most patches one image may have.
        resize: `crop`: shortest side to `resize_to`, then centre crop to the native size (the reference evaluation
            transform; half a pixel off the centre is rounded to even, as torchvision does); `crop-floor`: the same,
            rounded down, as transformers does; `squash`: to the native size, both sides by their own scale; `aspect`:
            keep the aspect ratio, never enlarge, at most `max_patches`, each side a multiple of P.
        resize_to: shortest side before the centre crop, pixels. With `squash` it is optional: both sides are then
            resized for a shortest side of this, and the centre is kept, as DeiT does. None with `aspect`.
        interpolation: resampling filter, antialiased as Pillow does it.
        mean, std: normalisation per channel, of pixels scaled to 0..1. Folded into the graph at export.
        background: RGB colour 0..255 under transparent pixels.
        channels: C, always 3 (RGB).
        patch_order: the order of values inside a flattened patch. Fixed, and written down all the same: a wrong order
            gives wrong answers without any error.
    """

    patch_size: int
    native_grid: tuple[int, int]
    max_patches: int
    resize: Resize = "crop"
    resize_to: int | None = None
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    background: tuple[int, int, int] = (0, 0, 0)
    channels: int = 3
    patch_order: str = PATCH_ORDER

    @property
    def patch_dim(self) -> int:
        """Values in one flattened patch, P*P*C."""
        return self.patch_size * self.patch_size * self.channels

    @property
    def native_patches(self) -> int:
        """Patches of an image at the native grid."""
        return self.native_grid[0] * self.native_grid[1]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of these fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Preprocessing":
        """Check and read these fields from a JSON object; keys that are not ours are ignored.

        Raises:
            ManifestError: naming every missing or wrong field.
        """
        _raise_if(_problems(document, _PREPROCESSING_RULES) or _cross_problems(document))
        return cls(**{name: _frozen(document[name]) for name in _PREPROCESSING_RULES})


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy against the patch budget, measured on `dataset`; an empty `curve` means not measured.

    `curve` holds (max_patches, top1 in 0..1), rising in max_patches. Brown-out reads it.
    """

    dataset: str = ""
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the weights come from: checkpoint id and SHA-256, licence, library versions, the export command."""

    source: str
    sha256: str = ""
    licence: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that serving needs beside the weights.

    Attributes:
        name: the model's name in routes and metrics, `[a-z0-9][a-z0-9._-]{0,63}`.
        version: free text of the publisher, such as `1.0.0`.
        description: one sentence for people.
        labels: one per logit, in logit order; empty for a feature extractor, whose only output is `embedding`.
        preprocessing: how an image becomes patches.
        position_interpolation: how the position table is resampled at grids other than the native one.
        mixed_grids: False for models whose stem needs one grid per batch (the hybrid).
        precision: of the weights.
        accuracy: measured accuracy over the patch budget.
        provenance: where the weights come from.
        golden: (index, logit) of the best classes of the golden image (`model.golden`), as the source answers; serving
            refuses to start with a model that answers otherwise. Empty: not written down.
        explain: the graph has the output `attention`. Written only if it is true, for older releases refuse the field.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    provenance: Provenance
    description: str = ""
    position_interpolation: PositionInterpolation = "bicubic"
    mixed_grids: bool = True
    precision: Precision = "float32"
    accuracy: Accuracy = field(default_factory=Accuracy)
    golden: Golden = ()
    explain: bool = False

    def to_json(self) -> str:
        """The document that goes into `metadata_props["patchserve"]`."""
        document = asdict(self)
        document |= document.pop("preprocessing")
        if not self.explain:
            del document["explain"]
        return json.dumps({"schema": SCHEMA} | document, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Check and read a document written by `to_json`.

        Raises:
            ManifestError: if it is not JSON, of another schema, or has missing, unknown or wrong fields; all are named.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"the manifest is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise ManifestError("the manifest is not a JSON object")
        if document.get("schema") != SCHEMA:
            raise ManifestError(
                f"manifest schema {document.get('schema')!r} cannot be read; this release reads schema {SCHEMA}: "
                "export the model again with a matching release"
            )
        document.setdefault("golden", [])  # added to the schema later, as is the next one
        document.setdefault("explain", False)
        rules = _MANIFEST_RULES | _PREPROCESSING_RULES
        unknown = [f"{key!r} is not a field of schema {SCHEMA}" for key in document.keys() - rules.keys() - {"schema"}]
        _raise_if(
            (sorted(unknown) + _problems(document, rules)) or _cross_problems(document) + _golden_problems(document)
        )
        return cls(
            preprocessing=Preprocessing.from_dict(document),
            accuracy=Accuracy(document["accuracy"]["dataset"], _frozen(document["accuracy"]["curve"])),
            provenance=Provenance(**document["provenance"]),
            **{name: _frozen(document[name]) for name in _MANIFEST_RULES if name not in {"accuracy", "provenance"}},
        )


# --- validation -----------------------------------------------------------------------------------------------------
# A rule is (what the field must be, in words; the check). The words end up in the error message.
_Rule = tuple[str, Callable[[Any], bool]]


def _is_int(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def _is_list(value: Any, each: Callable[[Any], bool], length: int | None = None) -> bool:
    return isinstance(value, list | tuple) and all(map(each, value)) and length in (None, len(value))


def _one_of(choices: Any) -> _Rule:
    allowed = get_args(choices)
    return f"one of {', '.join(allowed)}", lambda value: value in allowed


def _is_accuracy(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"dataset", "curve"} or not isinstance(value["dataset"], str):
        return False
    points = value["curve"]
    if not _is_list(points, lambda point: _is_list(point, lambda number: type(number) in (int, float), 2)):
        return False
    rising = all(low[0] < high[0] for low, high in pairwise(points))
    return rising and all(_is_int(budget, 1, 2**31) and _is_number(top1, 0, 1) for budget, top1 in points)


def _is_golden(value: Any) -> bool:
    return _is_list(
        value,
        lambda pair: (
            _is_list(pair, lambda _: True, 2) and _is_int(pair[0], 0, 2**31) and _is_number(pair[1], -1e9, 1e9)
        ),
    )


def _is_provenance(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {item.name for item in fields(Provenance)}:
        return False
    libraries = value["libraries"]
    texts = [text for key, text in value.items() if key != "libraries"]
    return isinstance(libraries, dict) and all(isinstance(text, str) for text in [*texts, *libraries.values()])


_TEXT: _Rule = ("a text", lambda value: isinstance(value, str))

_PREPROCESSING_RULES: dict[str, _Rule] = {
    "patch_size": ("an integer from 1 to 256", lambda value: _is_int(value, 1, 256)),
    "native_grid": (
        "two integers from 1 to 1024 (rows, columns)",
        lambda value: _is_list(value, lambda side: _is_int(side, 1, 1024), 2),
    ),
    "max_patches": ("an integer from 1 to 65536", lambda value: _is_int(value, 1, 65536)),
    "resize": _one_of(Resize),
    "resize_to": (
        "an integer from 1 to 16384 (pixels), or null",
        lambda value: value is None or _is_int(value, 1, 16384),
    ),
    "interpolation": _one_of(Interpolation),
    "mean": ("three numbers from 0 to 1", lambda value: _is_list(value, lambda each: _is_number(each, 0, 1), 3)),
    "std": (
        "three numbers above 0, at most 10",
        lambda value: _is_list(value, lambda each: _is_number(each, 1e-6, 10), 3),
    ),
    "background": (
        "three integers from 0 to 255",
        lambda value: _is_list(value, lambda each: _is_int(each, 0, 255), 3),
    ),
    "channels": ("3", lambda value: _is_int(value, 3, 3)),
    "patch_order": (repr(PATCH_ORDER), lambda value: value == PATCH_ORDER),
}

_MANIFEST_RULES: dict[str, _Rule] = {
    "name": (
        f"a text that matches {_NAME.pattern}",
        lambda value: isinstance(value, str) and bool(_NAME.fullmatch(value)),
    ),
    "version": _TEXT,
    "description": _TEXT,
    "labels": (
        "a list of texts, one per logit; empty for a feature extractor",
        lambda value: _is_list(value, lambda each: isinstance(each, str)),
    ),
    "position_interpolation": _one_of(PositionInterpolation),
    "mixed_grids": ("true or false", lambda value: isinstance(value, bool)),
    "precision": _one_of(Precision),
    "accuracy": ('{"dataset": text, "curve": [[max_patches, top1], ...]} rising in max_patches', _is_accuracy),
    "golden": ("a list of [index of a class, logit]", _is_golden),
    "explain": ("true or false", lambda value: isinstance(value, bool)),
    "provenance": (f"an object of {', '.join(item.name for item in fields(Provenance))}", _is_provenance),
}


def _problems(document: Mapping[str, Any], rules: Mapping[str, _Rule]) -> list[str]:
    missing = [f"{name!r} is missing: it must be {words}" for name, (words, _) in rules.items() if name not in document]
    wrong = [
        f"{name!r} must be {words}, not {_short(document[name])}"
        for name, (words, is_valid) in rules.items()
        if name in document and not is_valid(document[name])
    ]
    return missing + wrong


def _cross_problems(document: Mapping[str, Any]) -> list[str]:
    """What only shows between fields; called when each field alone is right."""
    resize, resize_to = document["resize"], document["resize_to"]
    side = min(document["native_grid"]) * document["patch_size"]
    if resize == "aspect":
        return [] if resize_to is None else ["'resize_to' must be null when 'resize' is aspect"]
    if resize == "squash" and resize_to is None:
        return []
    if resize_to is None or resize_to < side:
        return [f"'resize_to' must be at least the native side, {side} pixels, when 'resize' is {resize}"]
    return []


def _golden_problems(document: Mapping[str, Any]) -> list[str]:
    classes = len(document["labels"])
    outside = [index for index, _ in document["golden"] if index >= classes]
    return [f"'golden' has logits of classes {outside}, but there are {classes} labels"] if outside else []


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise ManifestError("the manifest cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
