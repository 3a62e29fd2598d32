"""A checkpoint as files on this machine: a folder as timm or transformers writes it, or one file of weights."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.checkpoints.files import SUFFIXES
from model.checkpoints.loading import CheckpointError
from model.sources.source import FORMS, Bundle, model_name

# In the order of preference: safetensors cannot hold code.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def find(text: str) -> Bundle:
    """The checkpoint at a path.

    Raises:
        CheckpointError: if there is none, or more than one.
    """
    path = Path(text)
    if path.is_dir():
        weights = _weights_in(path)
        return bundle_of(path, weights, origin=path.resolve().name, name=model_name(path.resolve().name))
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a source is {FORMS}")
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: not a checkpoint: a file of weights ends in {', '.join(SUFFIXES)}")
    return bundle_of(path.parent, path, origin=path.name, name=model_name(path.stem))


def bundle_of(folder: Path, weights: Path, *, origin: str, name: str, revision: str = "") -> Bundle:
    """Weights and what lies beside them."""
    parts = tuple(folder / part for part in shards(weights)) or (weights,)
    return Bundle(
        origin=origin,
        name=name,
        weights=parts,
        config=_if_file(folder / "config.json"),
        processor=_if_file(folder / "preprocessor_config.json"),
        licence=_licence(folder / "README.md"),
        revision=revision,
    )


def shards(weights: Path) -> tuple[str, ...]:
    """The file names that an index of weights lists; none for a file that is no index.

    Raises:
        CheckpointError: if the index cannot be read, or names a file in another folder.
    """
    if not weights.name.endswith(".index.json"):
        return ()
    try:
        names = sorted(set(read_json(weights)["weight_map"].values()))
    except (KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{weights}: not an index of weights (it has no weight_map)") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix not in SUFFIXES:
            raise CheckpointError(f"{weights}: names {name!r}, which is no file of weights in the same folder")
    return tuple(names)


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is timm's, and not that of transformers."""
    return "architecture" in config and "model_type" not in config


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: if it is none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return document


def _weights_in(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(files) == 1:
        return files[0]
    names = ", ".join(path.name for path in files)
    found = f"{len(files)} of them, {names}: name one" if files else f"none of {', '.join(WEIGHT_FILES)}"
    raise CheckpointError(f"{folder}: a folder must hold one checkpoint, and this has {found}")


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _licence(card: Path) -> str:
    """The licence in the front matter of a model card, if it states one."""
    if not card.is_file():
        return ""
    matter = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    stated = re.search(r"^license:\s*([\w.+-]+)\s*$", matter[1], re.MULTILINE) if matter else None
    return stated[1] if stated else ""
