"""Proof that an artifact answers as its model does: ONNX Runtime against PyTorch over many batches and grids.

Axes: `B` images, `N` patches, `K` classes, `D` width.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from model.manifest import Precision, Preprocessing
from model.rollout import attention_shares
from model.vit import VisionTransformer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

if TYPE_CHECKING:
    import onnxruntime

Grid = tuple[int, int]

# Of the largest absolute difference; those below float32 are relative to the largest logit or feature. float16 keeps 11
# bits. int8 is judged on real images by export.calibration: on noise this only finds what is broken.
TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "float16": 2e-2, "int8": 0.5}


@dataclass(frozen=True, slots=True)
class Case:
    """One batch to compare."""

    name: str
    grids: tuple[Grid, ...]  # rows and columns of each image


@dataclass(frozen=True, slots=True)
class Difference:
    """How far ONNX Runtime was from PyTorch on one batch: largest absolute difference, over valid outputs."""

    case: str
    batch: int
    grids: str
    logits: float  # 0 for a feature extractor, which has none
    embedding: float
    alone: float  # logits (else embeddings) of the images run alone, against the same images in the batch
    tolerance: float
    alone_tolerance: float = math.inf  # where an image alone must be nearer to itself than to PyTorch
    attention: float = 0.0  # to PyTorch and of images run alone, times the patches: 1 is the even share

    @property
    def passed(self) -> bool:
        """Whether every difference is within tolerance; a NaN is not."""
        same = self.alone <= self.alone_tolerance
        found = (self.logits, self.embedding, self.alone, self.attention)
        return same and all(value <= self.tolerance for value in found)


def cases(spec: Preprocessing, *, mixed_grids: bool = True) -> tuple[Case, ...]:
    """At least 12 batches: native, one patch, thin, larger than native, exactly `max_patches`, and mixtures of them."""
    rows, columns = spec.native_grid
    most = spec.max_patches

    def fit(grid: Grid) -> Grid:
        height = min(max(1, grid[0]), most)
        return height, max(1, min(grid[1], most // height))

    native, wide, tall = fit((rows, columns)), fit((rows // 2, columns)), fit((rows, columns // 2))
    larger, full = fit((math.isqrt(most), math.isqrt(most))), _full_grid(most)
    line, column, one = fit((1, 2 * columns)), fit((2 * rows, 1)), (1, 1)
    uniform = (
        Case("native", (native,)),
        Case("four native", (native,) * 4),
        Case("one patch", (one,)),
        Case("three of one patch", (one,) * 3),
        Case("one row", (line,) * 2),
        Case("one column", (column,) * 2),
        Case("wide", (wide,) * 2),
        Case("tall", (tall,)),
        Case("larger than native", (larger,)),
        Case("max_patches", (full,)),
        Case("seven native", (native,) * 7),
        Case("two patches", (fit((1, 2)), fit((1, 2)))),
    )
    mixtures = (
        Case("mixed wide, tall", (wide, tall)),
        Case("mixed native, one patch", (native, one)),
        Case("mixed larger, line, column", (larger, line, column)),
        Case("mixed all", (native, one, wide, tall, full, line, column)),
    )
    return uniform + mixtures if mixed_grids else uniform


def _full_grid(patches: int) -> Grid:
    """The most square grid of exactly this many patches."""
    rows = next(side for side in range(math.isqrt(patches), 0, -1) if patches % side == 0)
    return rows, patches // rows


def check_structure(path: Path) -> None:
    """Run onnx's own checker, with shape inference.

    Raises:
        onnx.checker.ValidationError: when the file is not a valid model.
    """
    onnx.checker.check_model(str(path), full_check=True)


def open_session(path: Path) -> "onnxruntime.InferenceSession":
    """A CPU session as serving would open it."""
    import onnxruntime  # noqa: PLC0415 - after ORT_DISABLE_TELEMETRY is set

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def compare(
    session: "onnxruntime.InferenceSession",
    model: VisionTransformer,
    precision: Precision,
    batches: tuple[Case, ...],
    *,
    explain: bool = False,
) -> Iterator[Difference]:
    """Run every case in both, on seeded random pixels; padding is random too. Yields as it goes."""
    draw = np.random.default_rng(0)
    for case in batches:
        longest = max(rows * columns for rows, columns in case.grids)
        shape = (len(case.grids), longest, model.preprocessing.patch_dim)
        patches = draw.integers(0, 256, shape, np.uint8)
        grid = np.array(case.grids, np.int64)
        with torch.inference_mode():
            logits, embedding = (output.numpy() for output in model(torch.from_numpy(patches), torch.from_numpy(grid)))
        expected = {"logits": logits, "embedding": embedding} if model.config.classes else {"embedding": embedding}
        outputs = dict(zip(expected, session.run(list(expected), {"patches": patches, "grid": grid}), strict=True))
        first = next(iter(expected))
        largest = max(float(np.abs(output).max()) for output in expected.values())
        yield Difference(
            case.name,
            len(case.grids),
            _grids_text(case.grids),
            _largest(outputs["logits"], logits) if "logits" in outputs else 0.0,
            _largest(outputs["embedding"], embedding),
            _largest(_run_alone(session, first, patches, case.grids), outputs[first]),
            TOLERANCE[precision] * (1.0 if precision == "float32" else max(1.0, largest)),
            TOLERANCE["float32"] * max(1.0, largest) if precision == "int8" else math.inf,
            _attention_difference(session, model, patches, case.grids) if explain else 0.0,
        )


def _attention_difference(
    session: "onnxruntime.InferenceSession",
    model: VisionTransformer,
    patches: NDArray[np.uint8],
    grids: tuple[Grid, ...],
) -> float:
    """Largest difference of the rollout to PyTorch, and of images run alone to themselves in the batch."""
    grid = np.array(grids, np.int64)
    with torch.inference_mode():
        expected = attention_shares(model, torch.from_numpy(patches), torch.from_numpy(grid)).numpy()
    found = session.run(["attention"], {"patches": patches, "grid": grid})[0]
    sizes = grid.prod(1)
    largest = [_largest(found * sizes[:, None], expected * sizes[:, None])]
    for row, (rows, columns) in enumerate(grids):
        size = rows * columns
        own = {"patches": patches[row : row + 1, :size], "grid": grid[row : row + 1]}
        alone = session.run(["attention"], own)[0]
        largest.append(_largest(alone * size, found[row : row + 1, :size] * size))
    return max(largest)


def _grids_text(grids: tuple[Grid, ...]) -> str:
    texts = [f"{rows}x{columns}" for rows, columns in dict.fromkeys(grids)]
    return " ".join(texts if len(texts) <= 3 else [*texts[:2], f"and {len(texts) - 2} more"])


def _run_alone(
    session: "onnxruntime.InferenceSession", output: str, patches: NDArray[np.uint8], grids: tuple[Grid, ...]
) -> NDArray[np.float32]:
    """One output, `[B, K]` or `[B, D]`, of each image in a batch of its own, without padding."""
    rows = [
        session.run([output], {"patches": image[None, : grid[0] * grid[1]], "grid": np.array([grid], np.int64)})[0]
        for image, grid in zip(patches, grids, strict=True)
    ]
    return np.concatenate(rows)


def _largest(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Largest absolute difference; NaN if either holds one, so that a comparison with it fails."""
    return float(np.abs(left.astype(np.float64) - right).max())


def report(differences: list[Difference]) -> dict[str, Any]:
    """The comparison as a JSON document."""
    return {
        "passed": all(difference.passed for difference in differences),
        "max_logits_difference": max(difference.logits for difference in differences),
        "max_embedding_difference": max(difference.embedding for difference in differences),
        "cases": [asdict(difference) | {"passed": difference.passed} for difference in differences],
    }
