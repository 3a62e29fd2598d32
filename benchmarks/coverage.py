"""Which checkpoints convert, and how close the answers stay: a row per architecture, written to docs/coverage.md.

    python -m benchmarks.coverage --no-export        # PyTorch against PyTorch
    python -m benchmarks.coverage                    # through ONNX Runtime as well
    python -m benchmarks.coverage --only 'dinov2'    # some entries

Each entry is built by its own library with random weights and reduced depth, converted, and asked the same image at the
native grid and at two others, in one padded batch where the model allows it. A difference counts relative to the
largest logit. Results go to runs/coverage.jsonl line by line; entries that are there already are not run again, so the
command can be stopped at any time. `--fresh` starts anew.
"""

import argparse
import importlib
import importlib.metadata
import json
import re
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.references import WIDE, Reference, all_references
from export import verify
from export.graph import build_graph
from model.checkpoints.loading import CheckpointError
from model.manifest import Manifest, Provenance
from model.preprocess import patchify
from model.vit import VisionTransformer

LIMIT = 1e-4  # of the difference, relative to the largest logit
_LIBRARIES = ("torch", "timm", "transformers", "torchvision", "onnxruntime")
RESULTS = Path("runs/coverage.jsonl")
DOCUMENT = Path("docs/coverage.md")
Grid = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Result:
    """One row."""

    entry: str
    grids: str = ""  # native first
    torch: float | None = None  # relative difference of our model
    onnx: float | None = None  # relative difference of its artifact in ONNX Runtime; None if it was not exported
    refusal: str = ""  # the converter's message
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether everything that was compared is within the limit; a NaN is not."""
        return self.torch is not None and all(each <= LIMIT for each in (self.torch, self.onnx) if each is not None)


def main() -> None:
    """Run what is missing, then write the document; after each entry, so that a stop loses nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="regular expression on names such as timm:vit_base_patch16_224")
    parser.add_argument("--no-export", action="store_true", help="compare PyTorch with PyTorch alone")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--depth", type=int, default=2, help="blocks of every model")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    RESULTS.parent.mkdir(exist_ok=True)
    if arguments.fresh:
        RESULTS.unlink(missing_ok=True)
    known = _known()
    for entry, make in all_references(arguments.depth):
        done = known.get(entry)
        enough = done is not None and (arguments.no_export or done.onnx is not None or bool(done.refusal))
        if enough or not re.search(arguments.only, entry):
            continue
        result = run(entry, make, export=not arguments.no_export)
        with RESULTS.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        print(_line(result), flush=True)
        DOCUMENT.write_text(document(list(_known().values()), arguments.depth))
    DOCUMENT.write_text(document(list(_known().values()), arguments.depth))


def _known() -> dict[str, Result]:
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {result.entry: result for result in (Result(**json.loads(line)) for line in lines)}


def run(entry: str, make: Callable[[], Reference], *, export: bool) -> Result:
    """Build, convert and compare one entry."""
    started = time.monotonic()
    reference = make()
    try:
        model = convert(reference)
    except CheckpointError as error:
        return Result(entry, refusal=str(error), seconds=round(time.monotonic() - started, 1))
    grids = choose_grids(model, square=reference.square)
    images = draw_images(model, grids)
    expected = [expect(reference, image) for image in images]
    ours = _compare(lambda *batch: ask_model(model, *batch), model, images, grids, expected)
    theirs = None
    if export:
        with tempfile.TemporaryDirectory() as folder:
            session = _session(model, Path(folder) / "model.onnx")
            theirs = _compare(lambda *batch: ask_session(session, *batch), model, images, grids, expected)
    text = " ".join(f"{rows}x{columns}" for rows, columns in grids)
    return Result(entry, text, ours, theirs, seconds=round(time.monotonic() - started, 1))


def convert(reference: Reference) -> VisionTransformer:
    """The reference as our model."""
    converter = importlib.import_module(f"model.checkpoints.from_{reference.family}")
    model: VisionTransformer = converter.convert(
        reference.weights, reference.config, mean=reference.mean, std=reference.std
    )
    return model


def choose_grids(model: VisionTransformer, *, square: bool) -> tuple[Grid, ...]:
    """The native grid, a smaller and a larger one; square ones where the library knows no others."""
    rows, columns = model.preprocessing.native_grid
    if square:
        return (rows, columns), (rows // 2 + 1,) * 2, (rows + 3,) * 2
    return (rows, columns), (max(1, rows - 3), columns // 2 + 1), (rows // 2, columns + 4)


def draw_images(model: VisionTransformer, grids: tuple[Grid, ...]) -> list[NDArray[np.uint8]]:
    """Seeded random pixels, `[height, width, 3]` each."""
    draw, side = np.random.default_rng(0), model.preprocessing.patch_size
    return [draw.integers(0, 256, (rows * side, columns * side, 3), np.uint8) for rows, columns in grids]


@torch.inference_mode()
def expect(reference: Reference, image: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]:
    """What the library answers."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in (reference.mean, reference.std))
    return reference.answer((pixels - mean) / std)


Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]
Ask = Callable[[NDArray[np.uint8], NDArray[np.int64]], tuple[Tensor, Tensor]]


@torch.inference_mode()
def ask_model(model: VisionTransformer, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]` and embeddings `[B, D]` of our model."""
    logits, embedding = model(torch.from_numpy(patches), torch.from_numpy(grid))
    return logits, embedding


def ask_session(session: Any, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """The same of an artifact, which has no logits if it is a feature extractor."""
    *logits, embedding = map(torch.from_numpy, session.run(None, {"patches": patches, "grid": grid}))
    return logits[0] if logits else embedding[:, :0], embedding


def _session(model: VisionTransformer, path: Path) -> Any:
    labels = tuple(f"class {index}" for index in range(model.config.classes))
    manifest = Manifest("coverage", "0", labels, model.preprocessing, Provenance("random"))
    ir.save(build_graph(model, manifest, 24), path)
    return verify.open_session(path)


def _compare(
    ask: Ask,
    model: VisionTransformer,
    images: list[NDArray[np.uint8]],
    grids: tuple[Grid, ...],
    expected: list[tuple[Tensor, Tensor | None]],
) -> float:
    """Largest difference of logits and embeddings, each relative to the largest value that is expected."""
    differences = []
    for indices in [range(len(grids))] if model.config.mixed_grids else [[index] for index in range(len(grids))]:
        batch = _batch(
            model.preprocessing.patch_size, [images[index] for index in indices], [grids[i] for i in indices]
        )
        logits, embeddings = ask(*batch)
        for row, index in enumerate(indices):
            theirs = expected[index]
            differences.append(_relative(logits[row], theirs[0][0]))
            if theirs[1] is not None:
                differences.append(_relative(embeddings[row], theirs[1][0]))
    return max(differences, key=lambda value: float("inf") if np.isnan(value) else value)


def _batch(side: int, images: list[NDArray[np.uint8]], grids: list[Grid]) -> Batch:
    """One padded batch; padding is 255, which nothing may read."""
    sequences = [patchify(image, side) for image in images]
    longest = max(map(len, sequences))
    patches = np.full((len(sequences), longest, sequences[0].shape[1]), 255, np.uint8)
    for row, sequence in zip(patches, sequences, strict=True):
        row[: len(sequence)] = sequence
    return patches, np.array(grids, np.int64)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("nan")
    return float((ours - theirs).abs().max() / theirs.abs().max()) if theirs.numel() else 0.0


def _line(result: Result) -> str:
    numbers = " ".join("-" if value is None else f"{value:.1e}" for value in (result.torch, result.onnx))
    verdict = "ok" if result.passed else f"REFUSED {result.refusal}" if result.refusal else "DIFFERS"
    return f"{result.entry} {numbers} {verdict} ({result.seconds} s)"


_ORDER = ("timm", "transformers", "torchvision", "jax")
_INTRODUCTION = """# Which checkpoints convert

Written by `python -m benchmarks.coverage`. Each row is an architecture of another library, built there with random
weights and {depth} blocks (those wider than {wide} with six heads of their own width), converted, and asked the same
images by both. The numbers are the largest difference of logits and embeddings, relative to the largest value, over the
native grid and two others, at which the library resamples its positions itself; limit {limit:g}. Images of a row are
one padded batch, except for ResNet stems, which need one grid a batch. "PyTorch" is our model, "ONNX Runtime" its
artifact of opset 24 on a CPU; "-" was not run. Libraries: {libraries}.

Everything else is refused with the part that is not supported, before anything is written.
"""


def document(results: list[Result], depth: int) -> str:
    """The tables as Markdown."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    text = [_INTRODUCTION.format(depth=depth, wide=WIDE, limit=LIMIT, libraries=versions)]
    for family in _ORDER:
        rows = sorted((each for each in results if each.entry.startswith(f"{family}:")), key=lambda each: each.entry)
        exact = sum(each.passed for each in rows)
        exported = sum(each.passed and each.onnx is not None for each in rows)
        text.append(f"## {family}: {exact} of {len(rows)} the same, {exported} of them exported\n")
        text.append("| architecture | grids | PyTorch | ONNX Runtime | |\n|---|---|---|---|---|")
        text += [_row(each) for each in rows]
        text.append("")
    return "\n".join(text)


def _row(result: Result) -> str:
    numbers = ["-" if value is None else f"{value:.0e}" for value in (result.torch, result.onnx)]
    verdict = "exact" if result.passed else f"refused: {result.refusal}" if result.refusal else "**differs**"
    return f"| {result.entry.split(':', 1)[1]} | {result.grids} | {numbers[0]} | {numbers[1]} | {verdict} |"


if __name__ == "__main__":
    main()
