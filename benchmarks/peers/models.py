"""The models: one artifact that all servers load, and for PyTorch the checkpoint with the same weights."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from model.manifest import METADATA_KEY, Manifest
from service.artifacts import bundled_model
from service.engine import Engine
from service.onnx_pruning import without_output
from service.settings import EngineSettings

BUNDLED = "bundled"
MODELS = (BUNDLED, "Ti/16", "B/16")


@dataclass(frozen=True, slots=True)
class Weights:
    """Files of one model; without a checkpoint PyTorch is left out."""

    artifact: Path
    checkpoint: Path | None


def prepare(model: str, folder: Path, bundled_checkpoint: Path | None) -> Weights:
    """Find or make the files of a model; variants get random weights.

    Args:
        model: `bundled`, or a variant that `export.to_onnx --random` knows.
        folder: where files are made, once.
        bundled_checkpoint: what the bundled model was exported from, if it is at hand.

    Raises:
        SystemExit: if that checkpoint is another one.
    """
    if model == BUNDLED:
        return Weights(_without_attention(folder / "bundled.onnx"), _checked(bundled_checkpoint))
    stem = folder / f"random-{model.lower().replace('/', '-')}"
    artifact, checkpoint = stem.with_suffix(".onnx"), stem.with_suffix(".safetensors")
    if not artifact.is_file():
        export = [sys.executable, "-m", "export.to_onnx", "--random", model, "--quick-check", "-o", str(artifact)]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    if not checkpoint.is_file():
        _write_checkpoint(model, checkpoint)
    return Weights(artifact, checkpoint)


def _without_attention(path: Path) -> Path:
    """The bundled model as an export without `--explain`: others would compute attention that nobody asks for."""
    model = onnx.load_from_string(without_output(bundled_model().read_bytes(), "attention"))
    for each in model.metadata_props:
        if each.key == METADATA_KEY:
            each.value = replace(Manifest.from_json(each.value), explain=False).to_json()
    onnx.save(model, path)
    return path


def _write_checkpoint(model: str, path: Path) -> None:
    """The same random weights: the seed is fixed."""
    from export.random_weights import random_source  # noqa: PLC0415 - PyTorch, needed once
    from model.checkpoints.native import save  # noqa: PLC0415

    source = random_source(model, None, "float32")
    save(path, source.model, source.description)


def _checked(checkpoint: Path | None) -> Path | None:
    if checkpoint is None:
        return None
    wanted = Engine(EngineSettings()).model.manifest.provenance.sha256
    if hashlib.sha256(checkpoint.read_bytes()).hexdigest() != wanted:
        raise SystemExit(f"{checkpoint} is not what the bundled model was exported from (SHA-256 {wanted})")
    return checkpoint
