"""From a model in memory to an artifact that is proven before it is put in place."""

import importlib.metadata
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir as ir
import torch
from rich.console import Console

from export import verify
from export.calibration import QualityLimits, compare_quality, feeds, image_files, predictions, spread
from export.graph import ExportError, Opset, build_graph
from export.quantize import layers, observe, quantize
from export.verify import Difference
from model.golden import golden_of, golden_patches
from model.manifest import METADATA_KEY, Golden, Manifest, Precision
from model.sources.source import Source
from model.vit import VisionTransformer

_LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
# The batches of `verify.cases` that a quick check runs: the native grid, other shapes, padding beside a longer image.
_QUICK = ("native", "wide", "tall", "mixed native, one patch")


def make_manifest(source: Source, precision: Precision, *, explain: bool = False) -> Manifest:
    """The manifest of an artifact made from `source` by this process.

    Raises:
        ManifestError: when a field of the source is not allowed in a manifest.
    """
    command = shlex.join(["python", "-m", "export.to_onnx", *sys.argv[1:]])
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    manifest = Manifest(
        name=source.description.name,
        version=source.description.version,
        description=source.description.description,
        labels=source.description.labels,
        preprocessing=source.model.preprocessing,
        position_interpolation=source.model.config.position_interpolation,
        mixed_grids=source.model.config.mixed_grids,
        precision=precision,
        accuracy=source.description.accuracy,
        provenance=replace(source.provenance, libraries=libraries, command=command),
        golden=_golden(source.model),
        explain=explain,
    )
    return Manifest.from_json(manifest.to_json())


def _golden(model: VisionTransformer) -> Golden:
    spec = model.preprocessing
    patches = torch.from_numpy(golden_patches(spec))[None]
    with torch.inference_mode():
        logits, _ = model(patches, torch.tensor([spec.native_grid]))
    return golden_of(logits[0].float().numpy())


def export(
    source: Source, manifest: Manifest, output: Path, opset: Opset, console: Console, *, quick: bool = False
) -> list[Difference]:
    """Write a float artifact, verify it, and put it in place only when it passed.

    Args:
        source: the model.
        manifest: what the artifact says of itself.
        output: the file to write.
        opset: of the graph.
        console: where progress is shown.
        quick: compare a few batches of usual size, and none of many times the native patches.

    Returns:
        The differences to PyTorch, one a case; if any did not pass, `output` was not written.

    Raises:
        ExportError: when the model cannot be stored in one file, or the file is not a valid model.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    try:
        with step(console, "trace the graph"):
            graph = build_graph(source.model, manifest, opset)
        with step(console, f"write {output.name}"):
            ir.save(graph, partial)
        del graph  # as large as the weights
        with step(console, "check the structure"):
            _check(partial)
        differences = _compare(partial, source.model, manifest, console, quick=quick)
        if all(difference.passed for difference in differences):
            partial.replace(output)
        return differences
    finally:
        partial.unlink(missing_ok=True)


def export_int8(
    source: Source,
    manifest: Manifest,
    output: Path,
    opset: Opset,
    console: Console,
    folders: tuple[Path, Path],
    limits: QualityLimits,
    *,
    quick: bool = False,
) -> list[Difference]:
    """Export in float32, quantise that, and put it in place only when it is good enough on real images.

    Args:
        source: the model.
        manifest: what the artifact says of itself.
        output: the file to write.
        opset: of the graph.
        console: where progress is shown.
        folders: images that calibrate, and images that decide (class folders named as labels give accuracy).
        limits: what it must reach.
        quick: compare the float32 graph on a few batches.

    Returns:
        The differences to PyTorch: those of int8, or of float32 if they already did not pass.

    Raises:
        ExportError: as for `export`, and when the quality is below the limits.
    """
    if not manifest.labels:
        raise ExportError("int8 is judged by its classes, and a feature extractor has none: --precision float16")
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as name:
        exact, rounded, scratch = (Path(name) / file for file in ("float32.onnx", "int8.onnx", "scratch.onnx"))
        differences = export(source, replace(manifest, precision="float32"), exact, opset, console, quick=quick)
        if not all(difference.passed for difference in differences):
            return differences
        with step(console, "calibrate and quantise"):
            _quantize(source, manifest, exact, rounded, scratch, image_files(folders[0], manifest.labels)[0], limits)
        with step(console, "check the structure"):
            _check(rounded)
        differences = _compare(rounded, source.model, manifest, console, quick=True)
        with step(console, "classify real images in float32 and int8"):
            _judge(exact, rounded, manifest, folders[1], limits, console)
        if all(difference.passed for difference in differences):
            rounded.replace(output)
        return differences


def _quantize(
    source: Source,
    manifest: Manifest,
    exact: Path,
    rounded: Path,
    scratch: Path,
    files: list[Path],
    limits: QualityLimits,
) -> None:
    graph = ir.load(exact)
    names = [str(node.inputs[0].name) for node in layers(graph.graph, source.model.config) if node.inputs[0]]
    seen = observe(exact, names, feeds(spread(files, limits.images), manifest.preprocessing), scratch)
    quantize(graph, source.model.config, {name: values.interval() for name, values in seen.items()})
    graph.metadata_props[METADATA_KEY] = manifest.to_json()
    ir.save(graph, rounded)


def _judge(
    exact: Path, rounded: Path, manifest: Manifest, folder: Path, limits: QualityLimits, console: Console
) -> None:
    files, targets = image_files(folder, manifest.labels)
    found = [predictions(verify.open_session(path), files, manifest.preprocessing) for path in (exact, rounded)]
    quality = compare_quality(found[0], found[1], targets)
    console.print(quality.text(), soft_wrap=True)
    if problem := quality.problem(limits):
        raise ExportError(f"int8 is not good enough, and nothing was written: {problem}")


def _check(path: Path) -> None:
    try:
        verify.check_structure(path)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported file is not a valid model: {error}") from None


def _compare(
    path: Path, model: VisionTransformer, manifest: Manifest, console: Console, *, quick: bool
) -> list[Difference]:
    with step(console, "open it in ONNX Runtime"):
        session = verify.open_session(path)
    batches = verify.cases(manifest.preprocessing, mixed_grids=manifest.mixed_grids)
    if quick:
        batches = tuple(case for case in batches if case.name in _QUICK)
    results = verify.compare(session, model, manifest.precision, batches, explain=manifest.explain)
    differences = []
    for number, case in enumerate(batches, 1):
        with step(console, f"compare with PyTorch {number}/{len(batches)}: {case.name}"):
            differences.append(next(results))
    return differences


@contextmanager
def step(console: Console, name: str) -> Iterator[None]:
    """Show a step while it runs; a step over two seconds leaves a line with its time."""
    started = time.monotonic()
    with console.status(name):
        yield
    elapsed_s = time.monotonic() - started
    if elapsed_s > 2:
        console.print(f"{name}: {elapsed_s:.1f} s")
