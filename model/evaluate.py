"""How good a checkpoint is along the served path: `model.measurement` as a command.

    python -m model.evaluate runs/fashion/model.safetensors --max-patches 49,36,25,16 --write

Top-1, top-5, accuracy of each class, calibration and speed, at every patch budget. With `--write` the accuracy curve
goes into the checkpoint, from there into the artifact, and brown-out reads it.
"""

import json
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model.checkpoints import native
from model.checkpoints.loading import CheckpointError
from model.data import DataError
from model.data_sets import FORMS, encoded
from model.manifest import Accuracy
from model.measurement import Result, evaluate


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint written by model.train.")],
    data: Annotated[Path | None, typer.Option(help=f"Test images: {FORMS}; default Fashion-MNIST.")] = None,
    dataset: Annotated[str, typer.Option(help="Name of the data set in the record.")] = "Fashion-MNIST test",
    max_patches: Annotated[str, typer.Option(help="Patch budgets, separated by commas; default the native one.")] = "",
    write: Annotated[bool, typer.Option("--write", help="Record the curve in the checkpoint.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write everything that was measured, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the reliability at the largest budget, as PNG.")] = None,
) -> None:
    """Measure a checkpoint at one or several patch budgets."""
    console = Console()
    try:
        model, description = native.load(checkpoint)
        budgets = [int(text) for text in max_patches.split(",") if text] or [model.preprocessing.native_patches]
        _, entries = encoded(data, description.labels)
        started = time.monotonic()
        results = [evaluate(model, entries, budget, console=console) for budget in sorted(set(budgets))]
    except (CheckpointError, DataError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    _show(results, description.labels, console)
    counts = Counter(entry.target for entry in entries)
    console.print(f"{dataset}: {len(entries)} files of {len(counts)} classes, {time.monotonic() - started:.0f} s")
    if write:
        curve = tuple((result.max_patches, result.top1) for result in results)
        native.save(checkpoint, model, replace(description, accuracy=Accuracy(dataset, curve)))
    if report is not None:
        document = {"dataset": dataset, "labels": description.labels, "results": [asdict(each) for each in results]}
        report.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if plot is not None:
        from model.plots import draw_reliability  # noqa: PLC0415 - matplotlib takes a second

        draw_reliability(results[-1].calibration, plot)


def _show(results: list[Result], labels: tuple[str, ...], console: Console) -> None:
    for result in results:
        console.print(
            f"max_patches {result.max_patches}: top-1 {result.top1:.4f}, top-5 {result.top5:.4f}, calibration error "
            f"{result.calibration.error:.4f} on {result.images} images ({result.unreadable} unreadable, "
            f"{result.mean_patches:.1f} patches an image, {result.images_per_second:.0f} images/s)",
            soft_wrap=True,
        )
    measured = ((share, label) for label, share in zip(labels, results[-1].per_class, strict=True) if share is not None)
    worst = ", ".join(f"{label} {share:.4f}" for share, label in sorted(measured)[:5])
    console.print(f"lowest top-1 at {results[-1].max_patches}: {worst}", markup=False, soft_wrap=True)


def main() -> None:
    """Entry of `python -m model.evaluate`."""
    typer.run(command)


if __name__ == "__main__":
    main()
