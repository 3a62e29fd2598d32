"""What a model has learned: figures 6 and 7 of the paper for any checkpoint that loads, as PNG and as data.

python -m model.figures runs/photos/model.safetensors --images photos/test --output figures/

filters.png    first principal components of the patch embedding
positions.png  similarity of the position of each patch to all others
distance.png   mean distance in pixels at which each head of each block attends, over all images
rollout.png    the first images, with attention rollout
figures.npz    the numbers of the first three: filters, filters_variance, positions, distance
figures.json   the distances once more, the rollout of each shown image, and what was left out and why
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from model.checkpoints.loading import CheckpointError
from model.data import DataError
from model.inspection import plots
from model.inspection.findings import Findings, find
from model.sources.load import load, locate
from model.sources.source import FORMS, parse_source
from model.unlabelled import image_files


def write(findings: Findings, output: Path, name: str) -> list[str]:
    """Draw and write everything; returns the names of the files.

    Args:
        findings: of `find`.
        output: a folder, made if it is not there.
        name: of the model.
    """
    output.mkdir(parents=True, exist_ok=True)
    plots.plot_filters(findings.arrays["filters"], output / "filters.png")
    plots.plot_distances(findings.arrays["distance"], output / "distance.png")
    if "positions" in findings.arrays:
        plots.plot_similarity(findings.arrays["positions"], output / "positions.png")
    if findings.attended:
        plots.plot_rollout(findings.attended, output / "rollout.png")
    np.savez_compressed(output / "figures.npz", allow_pickle=False, **findings.arrays)
    document = {
        "model": name,
        "images": findings.images,
        "distance": findings.arrays["distance"].tolist(),
        "rollout": {each.name: each.shares.tolist() for each in findings.attended},
        "notes": findings.notes,
    }
    (output / "figures.json").write_text(json.dumps(document, indent=1) + "\n")
    return sorted(path.name for path in output.iterdir())


def command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"{FORMS.capitalize()}.")],
    images: Annotated[Path, typer.Option(help="Folder of images, in any folders inside it.")],
    output: Annotated[Path, typer.Option(help="Folder for figures and data.")],
    limit: Annotated[int, typer.Option(min=1, help="Use only the first images; the paper used 128.")] = 128,
    shown: Annotated[int, typer.Option(min=0, help="Images with a rollout.")] = 8,
) -> None:
    """Draw what a model has learned."""
    console = Console()
    try:
        opened = load(locate(parse_source(source)))
        files = track(image_files(images)[:limit], "images", console=console, transient=True)
        findings = find(opened.model, files, shown)
        names = write(findings, output, opened.description.name)
    except (CheckpointError, DataError) as error:
        raise SystemExit(f"error: {error}") from None
    for note in findings.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"{output}: {', '.join(names)} from {findings.images} images", soft_wrap=True)


def main() -> None:
    """Entry of `python -m model.figures`."""
    typer.run(command)


if __name__ == "__main__":
    main()
