"""`patchserve inspect`: what a model file holds."""

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Examples:\n\n  patchserve inspect birds.onnx\n\n  patchserve inspect birds.onnx --json"


def inspect(
    file: Annotated[Path, typer.Argument(help="Artifact (.onnx).", metavar="FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; all labels are in it.")] = False,
) -> None:
    """Show what a model file holds: manifest, graph, weights, measured accuracy, provenance.

    Nothing is run: neither ONNX Runtime nor the onnx package is needed.
    """
    from service.commands.artifact_facts import read_facts  # noqa: PLC0415 - `--help` reads no model

    facts = read_facts(file)
    if as_json:
        print(json.dumps(facts.to_dict(), indent=2))  # noqa: T201
        return
    from rich.console import Console  # noqa: PLC0415 - `--json` does not need it

    from service.commands.artifact_view import sections_of  # noqa: PLC0415

    console = Console(highlight=False)
    for section in sections_of(facts):
        console.print(section)
