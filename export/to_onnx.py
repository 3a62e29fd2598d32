"""Checkpoint to artifact: export, check, compare with PyTorch, and only then put the file in place.

    python -m export.to_onnx runs/fashion/model.safetensors -o fashion-mnist.onnx --report
    python -m export.to_onnx hf:google/vit-base-patch16-224
    python -m export.to_onnx timm:vit_base_patch16_siglip_224.webli --drop-head
    python -m export.to_onnx --random B/16 -o vit-b-16.onnx --explain
    python -m export.to_onnx model.safetensors --precision int8 --calibrate photos/ --accuracy-folder validation/

An artifact that fails verification is not left behind, and the exit status is 1.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from export import verify
from export.artifact import export, export_int8, make_manifest, step
from export.calibration import QualityLimits
from export.graph import ExportError, Opset
from export.random_weights import random_source
from export.verify import Difference
from model.checkpoints.loading import CheckpointError
from model.manifest import ManifestError, Precision
from model.sources.labels import read_labels
from model.sources.load import load, locate, without_head
from model.sources.source import FORMS, Source, parse_source


def command(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help=f"{FORMS.capitalize()}.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The .onnx file to write.")] = None,
    random: Annotated[str | None, typer.Option(help="Random weights of this variant instead, such as B/16.")] = None,
    image_size: Annotated[int | None, typer.Option(help="With --random: native side, pixels.")] = None,
    opset: Annotated[Literal["24", "18"], typer.Option(help="18 is for older runtimes and TensorRT.")] = "24",
    precision: Annotated[Precision, typer.Option(help="Type of the weights; int8 needs --calibrate.")] = "float32",
    calibrate: Annotated[Path | None, typer.Option(metavar="FOLDER", help="With int8: typical images.")] = None,
    accuracy_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With int8: images that decide; default those of --calibrate.")
    ] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="Images that calibrate.")] = 256,
    max_accuracy_loss: Annotated[
        float, typer.Option(help="With int8 and class folders: points of top-1 it may lose to float32.")
    ] = 0.3,
    min_agreement: Annotated[
        float, typer.Option(max=100, help="With int8 and unlabelled images: percent that keep their class.")
    ] = 98.0,
    max_patches: Annotated[int | None, typer.Option(min=1, help="Most patches of one image.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels: one a line, or JSON.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="With attention per patch, for POST /explain.")] = False,
    drop_head: Annotated[bool, typer.Option("--drop-head", help="Export a feature extractor.")] = False,
    logits_required: Annotated[bool, typer.Option("--logits-required", help="Refuse what has no head.")] = False,
    quick_check: Annotated[bool, typer.Option("--quick-check", help="Compare few batches, not all.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the model in routes and metrics.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the model.")] = None,
    description: Annotated[str | None, typer.Option(help="One sentence about the model.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Write the differences as JSON beside the file.")] = False,
) -> None:
    """Export a checkpoint to one .onnx file and prove that it answers the same."""
    console = Console()
    try:
        opened = _open(source, random, image_size, precision, console)
        opened = _with_head(opened, console, drop=drop_head, needed=logits_required)
        opened = _with_options(opened, labels, max_patches, name=name, version=version, description=description)
        manifest = make_manifest(opened, precision, explain=explain)
        target = output or Path(f"{manifest.name}.onnx")
        version_of_graph: Opset = 24 if opset == "24" else 18
        if precision == "int8":
            limits = QualityLimits(calibration_images, max_accuracy_loss, min_agreement)
            folders = _folders(calibrate, accuracy_folder)
            differences = export_int8(
                opened, manifest, target, version_of_graph, console, folders, limits, quick=quick_check
            )
        else:
            differences = export(opened, manifest, target, version_of_graph, console, quick=quick_check)
    except (ExportError, CheckpointError, ManifestError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    console.print(_table(differences, has_logits=opened.model.config.classes > 0, explain=explain))
    if report:
        document = {"provenance": asdict(manifest.provenance)} | verify.report(differences)
        target.with_suffix(".report.json").write_text(json.dumps(document, indent=2) + "\n")
    if not all(difference.passed for difference in differences):
        raise SystemExit(f"error: {target} was not written: a difference is over its limit")
    console.print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, opset {opset}, {precision}", soft_wrap=True)


def _folders(calibrate: Path | None, accuracy: Path | None) -> tuple[Path, Path]:
    if calibrate is None:
        raise ExportError("int8 is calibrated on real images: name a folder of typical ones with --calibrate")
    return calibrate, accuracy or calibrate


def _open(
    text: str | None,
    random: str | None,
    image_size: int | None,
    precision: Precision,
    console: Console,
) -> Source:
    if random is not None and text is None:
        return random_source(random, image_size, precision)
    if text is None or random is not None:
        raise ExportError("name a checkpoint file, or --random VARIANT, and not both")
    bundle = locate(parse_source(text))  # shows its own progress
    with step(console, "load the weights"):
        source = load(bundle)
    for note in source.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    return source


def _with_head(source: Source, console: Console, *, drop: bool, needed: bool) -> Source:
    """The source as it is, or without its head; says so when there is none."""
    if drop and needed:
        raise ExportError("--drop-head and --logits-required contradict each other")
    if drop:
        return without_head(source)
    if source.model.config.classes == 0:
        if needed:
            raise ExportError(
                "the checkpoint has no classification head, so there are no logits: choose a fine-tuned one, or leave "
                "out --logits-required to export a feature extractor"
            )
        console.print("note: the checkpoint has no classification head: this is a feature extractor", soft_wrap=True)
    return source


def _with_options(source: Source, labels: Path | None, max_patches: int | None, **texts: str | None) -> Source:
    """Replace what the command line overrides."""
    given: dict[str, Any] = {key: value for key, value in texts.items() if value is not None}
    if labels is not None:
        given["labels"] = read_labels(labels, source.model.config.classes)
    if max_patches is not None:
        source.model.preprocessing = replace(source.model.preprocessing, max_patches=max_patches)
    return replace(source, description=replace(source.description, **given))


def _table(differences: list[Difference], *, has_logits: bool, explain: bool) -> Table:
    caption = "largest absolute differences to PyTorch; alone: an image run alone, to itself in the batch"
    caption += "; attention: in units of the even share" if explain else ""
    table = Table(caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("batch", no_wrap=not explain)  # one column more than fits beside long names
    wanted = {"logits": has_logits, "embedding": True, "attention": explain, "alone": True, "tolerance": True}
    columns = [column for column, shown in wanted.items() if shown]
    for column in columns:
        table.add_column("limit" if column == "tolerance" else column, justify="right", no_wrap=True)
    for each in differences:
        numbers = (f"{getattr(each, column):.1e}" for column in columns)
        table.add_row(f"{each.case} ({each.grids})", *numbers, style=None if each.passed else "bold red")
    return table


def main() -> None:
    """Entry of `python -m export.to_onnx`."""
    typer.run(command)


if __name__ == "__main__":
    main()
