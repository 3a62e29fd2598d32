"""Results as a file of JSON lines, one per measured cell, appended as it is measured: a killed run goes on."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What is measured once a round.

    Attributes:
        model: `bundled` or a variant such as `Ti/16`.
        workload: name of a set of JPEGs.
        connections: requests in flight; 0 for the loop without HTTP.
        server: its name in the catalog, or that of a ceiling.
        round: counted from 1.
    """

    model: str
    workload: str
    connections: int
    server: str
    round: int


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement.

    Attributes:
        cell: of what.
        requests_per_s: answered with 200.
        p50_ms, p99_ms: latency, milliseconds.
        cpu_ms: processor time of all processes of the server per request, milliseconds.
        error: why there is no figure; the numbers are then zero.
    """

    cell: Cell
    requests_per_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_ms: float = 0.0
    error: str = ""


def append(path: Path, result: Result) -> None:
    """One more line."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> list[Result]:
    """All lines; a cell that stands there twice counts with its last line. Empty if there is no file."""
    return list({result.cell: result for result in _lines(path)}.values())


def _lines(path: Path) -> Iterator[Result]:
    if path.is_file():
        for line in path.read_text().splitlines():
            document = json.loads(line)
            yield Result(**document | {"cell": Cell(**document["cell"])})
