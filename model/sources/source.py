"""What the user names, and what comes of it.

SOURCE            Reference          Bundle                 Source
a text      ->    parsed       ->    files that lie here -> a model in memory
parse_source      locate (downloads)                        load
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model.checkpoints.loading import CheckpointError
from model.checkpoints.native import Description
from model.manifest import Provenance
from model.vit import VisionTransformer

Kind = Literal["path", "hub", "torchvision"]
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"(?P<name>{_PART}/{_PART})(@(?P<revision>[A-Za-z0-9._/-]+))?")
_TIMM = re.compile(rf"(?P<name>{_PART})(@(?P<revision>[A-Za-z0-9._/-]+))?")
FORMS = "a file, a folder, hf:ORG/NAME[@REVISION], timm:NAME, or torchvision:NAME[@WEIGHTS]"


@dataclass(frozen=True, slots=True)
class Reference:
    """What was asked for.

    Attributes:
        kind: where it is.
        name: a path, a repository `ORG/NAME`, or a torchvision model.
        revision: branch, tag or commit of a repository; weights of torchvision; empty for the default.
    """

    kind: Kind
    name: str
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of one checkpoint on this machine, found but not read.

    Attributes:
        origin: what provenance records, with the revision.
        name: what the model may be called.
        weights: one file, or several that belong together.
        config: the source's own `config.json`.
        processor: the `preprocessor_config.json` of transformers.
        licence: as the source states it.
        revision: commit of a repository.
    """

    origin: str
    name: str
    weights: tuple[Path, ...]
    config: Path | None = None
    processor: Path | None = None
    licence: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A model in memory, and where it came from.

    Attributes:
        model: float32, on the CPU, in evaluation mode; `config.classes` is 0 without a head.
        description: labels, name and what else goes into the manifest.
        provenance: id, SHA-256 and licence of the weights.
        notes: what the user should know, such as a default that was assumed; sentences.
    """

    model: VisionTransformer
    description: Description
    provenance: Provenance
    notes: tuple[str, ...] = field(default=())


def parse_source(text: str) -> Reference:
    """Understand a SOURCE; nothing is opened.

    Raises:
        CheckpointError: if it has none of the known forms.
    """
    scheme, colon, rest = text.partition(":")
    patterns = {"hf": _HUB, "timm": _TIMM, "torchvision": _TIMM}
    if not colon or scheme not in patterns:
        return Reference("path", text)
    matched = patterns[scheme].fullmatch(rest)
    if matched is None:
        raise CheckpointError(f"{text!r} names no checkpoint: a source is {FORMS}")
    revision = matched["revision"] or ""
    if scheme == "torchvision":
        return Reference("torchvision", matched["name"], revision)
    name = f"timm/{matched['name']}" if scheme == "timm" else matched["name"]
    return Reference("hub", name, revision)


def model_name(text: str) -> str:
    """A name that a manifest allows, made from a file or repository name."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:64]
    return name or "model"
