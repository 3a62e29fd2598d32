"""Checkpoint to artifact: export, check, compare with PyTorch, and only then put the file in place.

    python -m export.to_onnx runs/fashion/model.safetensors -o fashion-mnist.onnx --report
    python -m export.to_onnx --random B/16 -o vit-b-16.onnx

An artifact that fails verification is not left behind, and the exit status is 1.
"""

import hashlib
import importlib.metadata
import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import onnx
import onnx_ir as ir
import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from export import verify
from export.graph import ExportError, Opset, build_graph, check_size
from export.verify import Difference
from model.checkpoints import native
from model.checkpoints.loading import CheckpointError
from model.checkpoints.native import Description
from model.manifest import Manifest, ManifestError, Precision, Provenance
from model.vit import VisionTransformer, decode_variant

_LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True)
class Source:
    """A model in memory, and where it came from."""

    model: VisionTransformer
    description: Description
    provenance: Provenance


def load_checkpoint(path: Path) -> Source:
    """Read a native checkpoint.

    Raises:
        CheckpointError: when it cannot be used.
    """
    model, description = native.load(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(model, description, Provenance(path.name, digest, description.licence))


def random_source(variant: str, image_size: int | None, precision: Precision, seed: int = 0) -> Source:
    """A model with random weights: for benchmarks and for trying a deployment before the real weights are there.

    Raises:
        ExportError: for an unknown variant, or one that cannot become one file in this precision.
    """
    try:
        config, spec = decode_variant(variant, image_size=image_size)
    except ValueError as error:
        raise ExportError(str(error)) from None
    with torch.device("meta"):  # before gigabytes of random weights are drawn
        check_size(VisionTransformer(config, spec), precision)
    torch.manual_seed(seed)
    model = VisionTransformer(config, spec).eval()
    name = f"random-{variant.lower().replace('/', '-')}"
    labels = tuple(f"class {index}" for index in range(config.classes))
    description = Description(labels, name, description=f"ViT-{variant} with random weights: answers mean nothing")
    return Source(model, description, Provenance(f"random:{variant} (seed {seed})"))


def make_manifest(source: Source, precision: Precision) -> Manifest:
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
        precision=precision,
        accuracy=source.description.accuracy,
        provenance=replace(source.provenance, libraries=libraries, command=command),
    )
    return Manifest.from_json(manifest.to_json())


def export(source: Source, manifest: Manifest, output: Path, opset: Opset, console: Console) -> list[Difference]:
    """Write the artifact, verify it, and put it in place only when it passed.

    Returns:
        The differences to PyTorch, one a case; if any did not pass, `output` was not written.

    Raises:
        ExportError: when the model cannot be stored in one file, or the file is not a valid model.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    try:
        with _step(console, "trace the graph"):
            graph = build_graph(source.model, manifest, opset)
        with _step(console, f"write {output.name}"):
            ir.save(graph, partial)
        del graph  # as large as the weights
        with _step(console, "check the structure"):
            _check(partial)
        differences = _compare(partial, source.model, manifest, console)
        if all(difference.passed for difference in differences):
            partial.replace(output)
        return differences
    finally:
        partial.unlink(missing_ok=True)


def _check(path: Path) -> None:
    try:
        verify.check_structure(path)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported file is not a valid model: {error}") from None


def _compare(path: Path, model: VisionTransformer, manifest: Manifest, console: Console) -> list[Difference]:
    with _step(console, "open it in ONNX Runtime"):
        session = verify.open_session(path)
    batches = verify.cases(manifest.preprocessing, mixed_grids=manifest.mixed_grids)
    results = verify.compare(session, model, manifest.precision, batches)
    differences = []
    for number, case in enumerate(batches, 1):
        with _step(console, f"compare with PyTorch {number}/{len(batches)}: {case.name}"):
            differences.append(next(results))
    return differences


@contextmanager
def _step(console: Console, name: str) -> Iterator[None]:
    """Show a step while it runs; a step over two seconds leaves a line with its time."""
    started = time.monotonic()
    with console.status(name):
        yield
    elapsed_s = time.monotonic() - started
    if elapsed_s > 2:
        console.print(f"{name}: {elapsed_s:.1f} s")


def _table(differences: list[Difference]) -> Table:
    caption = "largest absolute differences to PyTorch; alone: an image run alone, to itself in the batch"
    table = Table(caption=caption, box=box.SIMPLE_HEAD)
    table.add_column("batch", no_wrap=True, max_width=36)
    for column in ("logits", "embedding", "alone", "limit"):
        table.add_column(column, justify="right", no_wrap=True, min_width=7)
    for each in differences:
        numbers = (f"{value:.1e}" for value in (each.logits, each.embedding, each.alone, each.tolerance))
        table.add_row(f"{each.case} ({each.grids})", *numbers, style=None if each.passed else "bold red")
    return table


def command(
    checkpoint: Annotated[Path | None, typer.Argument(help="A checkpoint written by model.train.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The .onnx file to write.")] = None,
    random: Annotated[str | None, typer.Option(help="Random weights of this variant instead, such as B/16.")] = None,
    image_size: Annotated[int | None, typer.Option(help="With --random: native side, pixels.")] = None,
    opset: Annotated[Literal["24", "18"], typer.Option(help="18 is for older runtimes and TensorRT.")] = "24",
    precision: Annotated[Literal["float32", "float16"], typer.Option(help="Type of the weights.")] = "float32",
    max_patches: Annotated[int | None, typer.Option(min=1, help="Most patches of one image.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in routes and metrics.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the model.")] = None,
    description: Annotated[str | None, typer.Option(help="One sentence about the model.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Write the differences as JSON beside the file.")] = False,
) -> None:
    """Export a checkpoint to one .onnx file and prove that it answers the same."""
    console = Console()
    try:
        with _step(console, "load the weights"):
            source = _load(checkpoint, random, image_size, precision)
        source = _with_options(source, max_patches, name=name, version=version, description=description)
        manifest = make_manifest(source, precision)
        target = output or Path(f"{manifest.name}.onnx")
        differences = export(source, manifest, target, 24 if opset == "24" else 18, console)
    except (ExportError, CheckpointError, ManifestError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    console.print(_table(differences))
    if report:
        document = json.dumps(verify.report(differences), indent=2)
        target.with_suffix(".report.json").write_text(document + "\n")
    if not all(difference.passed for difference in differences):
        raise SystemExit(f"error: {target} was not written: a difference is over its limit")
    console.print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, opset {opset}, {precision}")


def _load(checkpoint: Path | None, random: str | None, image_size: int | None, precision: Precision) -> Source:
    if checkpoint is not None and random is None:
        return load_checkpoint(checkpoint)
    if random is not None and checkpoint is None:
        return random_source(random, image_size, precision)
    raise ExportError("name a checkpoint file, or --random VARIANT, and not both")


def _with_options(source: Source, max_patches: int | None, **texts: str | None) -> Source:
    """Replace what the command line overrides."""
    given: dict[str, Any] = {key: value for key, value in texts.items() if value is not None}
    if max_patches is not None:
        source.model.preprocessing = replace(source.model.preprocessing, max_patches=max_patches)
    return replace(source, description=replace(source.description, **given))


def main() -> None:
    """Entry of `python -m export.to_onnx`."""
    typer.run(command)


if __name__ == "__main__":
    main()
