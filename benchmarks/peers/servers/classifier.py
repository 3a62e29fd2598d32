"""What every peer does between its own HTTP layer and its own batching: the same work as this project's service.

`B` images, `N` patches, `P` patch side, `C` classes. Runs inside the peers' environments, so it imports only NumPy,
Pillow, onnxruntime and the parts of `model` that need no torch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.headers import ImageLimits
from model.manifest import METADATA_KEY, Manifest
from model.preprocess import PatchSequence, preprocess

SMALL_BATCH_PATCHES = 400  # the default of `patchserve serve --max-batch-patches` with a lane for each core


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What the benchmark tells a peer, by environment variables.

    Attributes:
        model: the artifact, or for PyTorch the checkpoint with the same weights.
        port: to listen on, on 127.0.0.1.
        workers: processes that run the model.
        threads: of one session.
        max_batch: most images of a batch.
    """

    model: Path
    port: int
    workers: int
    threads: int
    max_batch: int

    @classmethod
    def from_environment(cls) -> Self:
        """Read `PEER_MODEL`, `PEER_PORT`, `PEER_WORKERS`, `PEER_THREADS` and `PEER_MAX_BATCH`."""
        numbers = {name: int(os.environ[f"PEER_{name.upper()}"]) for name in ("port", "workers", "threads")}
        return cls(Path(os.environ["PEER_MODEL"]), max_batch=int(os.environ["PEER_MAX_BATCH"]), **numbers)


class Classifier:
    """The artifact in ONNX Runtime, with the preprocessing that its manifest asks for."""

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._limits = ImageLimits()

    @cached_property
    def _session(self) -> Any:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime  # noqa: PLC0415 - after the variable above

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._settings.threads
        options.inter_op_num_threads = 1
        # Spinning takes the cores from decoding: without it every peer answers more requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(self._settings.model, options, providers=["CPUExecutionProvider"])

    @cached_property
    def manifest(self) -> Manifest:
        """Of the artifact."""
        return Manifest.from_json(self._session.get_modelmeta().custom_metadata_map[METADATA_KEY])

    def read(self, data: bytes) -> PatchSequence:
        """The bytes of an image file to patches."""
        return preprocess(data, self.manifest.preprocessing, self._limits)

    def run(self, images: Sequence[PatchSequence]) -> NDArray[np.float32]:
        """Logits [B, C] of one batch."""
        patches, grid = stack(images)
        logits: NDArray[np.float32] = self._session.run(["logits"], {"patches": patches, "grid": grid})[0]
        return logits

    def classify(self, images: Sequence[PatchSequence]) -> list[dict[str, Any]]:
        """The replies to a batch."""
        labels = self.manifest.labels
        return [reply(row, labels) for row in self.run(images)]

    def classify_files(self, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """Decode and classify, one file after the other and then one batch."""
        return self.classify([self.read(data) for data in files])


def stack(images: Sequence[PatchSequence]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pad to the longest: patches uint8 [B, max(N), P*P*3] and grid int64 [B, 2]."""
    grid = np.array([image.grid for image in images], np.int64)
    longest = max(len(image.patches) for image in images)
    if all(len(image.patches) == longest for image in images):
        return np.stack([image.patches for image in images]), grid
    patches = np.zeros((len(images), longest, images[0].patches.shape[1]), np.uint8)
    for row, image in zip(patches, images, strict=True):
        row[: len(image.patches)] = image.patches
    return patches, grid


def reply(logits: NDArray[np.float32], labels: Sequence[str]) -> dict[str, Any]:
    """The five best classes of one image, from its logits [C]."""
    exponentials = np.exp(logits - logits.max())
    scores = exponentials / exponentials.sum()
    best = np.argsort(-logits)[:5]
    return {"predictions": [{"label": labels[i], "index": int(i), "score": float(scores[i])} for i in best]}


def batch_limit(spec_patches: int, batch_patches: int = SMALL_BATCH_PATCHES) -> int:
    """Images of that many patches in a batch of so many, by the rule of this project's service."""
    return max(1, min(64, batch_patches // spec_patches))
