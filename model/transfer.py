"""How well a checkpoint transfers to other images: `model.protocols` as a command.

    python -m model.transfer hf:ORG/NAME photos/train photos/test --shots 1,5,10
    python -m model.transfer runs/pretrained photos/train photos/test --protocols linear,full

few-shot  closed-form regularised least squares on frozen features, a few images of each class, several draws
linear    the head alone is trained, with SGD
full      all weights are trained, with SGD

All are measured on the test images along the served path, at the native size. Fashion-MNIST is written as `-`.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
from rich.console import Console
from rich.table import Table

from model.checkpoints.loading import CheckpointError
from model.data import DataError
from model.data_sets import FORMS, encoded
from model.protocols import Transfer, few_shot, fine_tune
from model.sources.load import load, locate
from model.sources.source import FORMS as SOURCES
from model.sources.source import parse_source
from model.training.materials import Request

Protocol = Literal["few-shot", "linear", "full"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    source: str
    data: Path | None  # None: Fashion-MNIST
    test: Path | None
    shots: tuple[int, ...]
    l2: float
    epochs: int


def command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"{SOURCES[0].upper()}{SOURCES[1:]}.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"{FORMS[0].upper()}{FORMS[1:]}; - is Fashion-MNIST.")],
    test: Annotated[str, typer.Argument(metavar="TEST", help="The same, for images to measure with.")],
    protocols: Annotated[str, typer.Option(help="few-shot, linear, full: separated by commas.")] = "few-shot",
    shots: Annotated[str, typer.Option(help="few-shot: images of each class, separated by commas.")] = "1,5,10",
    l2: Annotated[float, typer.Option(min=1e-9, help="few-shot: weight of the regularisation.")] = 1024.0,
    epochs: Annotated[int, typer.Option(min=1, help="linear and full: passes over DATA.")] = 10,
    report: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
) -> None:
    """Measure how a checkpoint transfers to other images."""
    console = Console()
    try:
        asked = Asked(source, _place(data), _place(test), _numbers(shots), l2, epochs)
        found = [result for each in _protocols(protocols) for result in _measure(each, asked)]
    except (CheckpointError, DataError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    console.print(_table(found))
    if report is not None:
        report.write_text(json.dumps([asdict(result) for result in found], indent=2) + "\n")


def _measure(protocol: Protocol, asked: Asked) -> Iterator[Transfer]:
    labels, entries = encoded(asked.data, split="train")
    _, tests = encoded(asked.test, labels)
    if protocol == "few-shot":
        model = load(locate(parse_source(asked.source))).model
        yield from few_shot(model, entries, tests, len(labels), asked.shots, l2=asked.l2)
        return
    request = Request(asked.data, hold_out=0.0, source=asked.source)
    with tempfile.TemporaryDirectory() as folder:
        yield fine_tune(request, tests, asked.epochs, freeze=protocol == "linear", folder=Path(folder))


def _table(found: list[Transfer]) -> Table:
    table = Table("protocol", "images", "top-1", "deviation", "seconds")
    for result in found:
        numbers = (str(result.images), f"{result.top1:.4f}", f"{result.deviation:.4f}", f"{result.seconds:.1f}")
        table.add_row(result.protocol, *numbers)
    return table


def _protocols(text: str) -> list[Protocol]:
    known: tuple[Protocol, ...] = get_args(Protocol)
    if unknown := set(text.split(",")) - set(known):
        raise ValueError(f"--protocols {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    return [each for each in known if each in text.split(",")]


def _place(text: str) -> Path | None:
    return None if text == "-" else Path(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def main() -> None:
    """Entry of `python -m model.transfer`."""
    typer.run(command)


if __name__ == "__main__":
    main()
