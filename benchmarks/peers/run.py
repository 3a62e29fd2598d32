"""This service beside other servers: same artifact, same preprocessing, same JPEGs, same load, one machine, one run.

    python -m benchmarks.peers.run peers.jsonl --environments ~/peers
    python -m benchmarks.peers.run quick.jsonl --environments ~/peers --quick
    python -m benchmarks.peers.report peers.jsonl

Method, rules and environments are in the README beside this file. Each round visits the loops without HTTP and then
every server: started, its answers compared with the model's, warmed up, loaded by wrk in every cell (model, workload,
connections), stopped. Results are appended to a file of JSON lines as they are measured; started again, the command
goes on where it ended. It exits with status 75 if `--stop-after-s` left cells unmeasured.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.peers import ceiling, processes
from benchmarks.peers.catalog import SERVERS
from benchmarks.peers.models import MODELS, Weights, prepare
from benchmarks.peers.photos import WORKLOADS, photos_in
from benchmarks.peers.plan import CONNECTIONS, Stop, Wanted, itinerary
from benchmarks.peers.results import Cell, Result, append, read
from benchmarks.peers.started import Place
from benchmarks.peers.visit import Task, visit

_UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h: run it again


@cache  # a model is run over a workload once
def _task(artifact: Path, folder: Path) -> Task:
    images = photos_in(folder)
    return Task(images, *ceiling.best_classes(artifact, images))


def _measure(stop: Stop, weights: Weights, place: Place) -> Iterator[Result]:
    folders = {cell.workload: place.work / cell.workload for cell, _ in stop.cells}
    if stop.server in ceiling.FORMS:
        yield from (_without_http(stop.server, weights, folders, *each) for each in stop.cells)
        return
    server = SERVERS[stop.server]
    model = weights.artifact if server.weights == "artifact" else weights.checkpoint
    if model is None:
        yield from (Result(cell, error="no checkpoint was given") for cell, _ in stop.cells)
        return
    tasks = {workload: _task(weights.artifact, folder) for workload, folder in folders.items()}
    yield from visit(server, model, tasks, stop.cells, place)


def _without_http(form: str, weights: Weights, folders: dict[str, Path], cell: Cell, seconds: float) -> Result:
    """In a process of its own, as servers are."""
    command = [sys.executable, "-m", "benchmarks.peers.ceiling", str(weights.artifact), str(folders[cell.workload])]
    command += ["--form", form, "--seconds", str(seconds)]
    return Result(cell, float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _show(result: Result) -> None:
    cell = result.cell
    head = f"{cell.round} {cell.model:8} {cell.workload:9} {cell.connections:4} {cell.server:16}"
    latency = f"p50 {result.p50_ms:8.1f}  p99 {result.p99_ms:8.1f} ms"
    numbers = f"{result.requests_per_s:8.1f}/s  {latency}  cpu {result.cpu_ms:6.2f} ms"
    print(head, result.error or numbers, flush=True)


def _run(wanted: Wanted, results: Path, place: Place, checkpoint: Path | None, until_s: float) -> bool:
    """Measure what is missing; says whether nothing is left."""
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the server is stopped too
    weights = cache(lambda model: prepare(model, place.work, checkpoint))
    for stop in itinerary(wanted, {result.cell for result in read(results)}):
        for result in _measure(stop, weights(stop.model), place):
            append(results, result)
            _show(result)
            if time.monotonic() > until_s:
                return not itinerary(wanted, {result.cell for result in read(results)})
    return True


def command(
    results: Annotated[Path, typer.Argument(help="File of JSON lines, appended to.")],
    environments: Annotated[Path, typer.Option(help="Folder with one virtual environment per peer, by its name.")],
    work: Annotated[
        Path | None, typer.Option(help="Folder for models, JPEGs, bodies, logs; default: temporary.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="bundled, or a variant; more than once.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(WORKLOADS)}.")] = None,
    connections: Annotated[list[int] | None, typer.Option(min=1, help="Requests in flight.")] = None,
    server: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SERVERS)}.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Of each cell; 0: by model and connections.")] = 0.0,
    rounds: Annotated[int, typer.Option(min=0, help="Over all servers; 0: by model.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Five minutes: two models, 224x224, 1 and 32.")] = False,
    bundled_checkpoint: Annotated[Path | None, typer.Option(help="Of the bundled model, for PyTorch.")] = None,
    stop_after_s: Annotated[float, typer.Option(min=1, help="Begin no cell later than this.")] = 86_400.0,
) -> None:
    """Measure every server in every cell that the results do not hold yet."""
    until_s = time.monotonic() + stop_after_s
    wanted = Wanted(
        model or (["bundled", "Ti/16"] if quick else MODELS),
        workload or (["224x224"] if quick else WORKLOADS),
        connections or ([1, 32] if quick else CONNECTIONS),
        server or tuple(SERVERS),
        ceiling.FORMS,
        seconds or (2.0 if quick else 0.0),
        rounds or (1 if quick else 0),
    )
    folder = work or Path(tempfile.gettempdir()) / "patchserve-peers"
    folder.mkdir(parents=True, exist_ok=True)
    if not _run(wanted, results, Place(environments.absolute(), folder.absolute()), bundled_checkpoint, until_s):
        raise typer.Exit(_UNFINISHED)


if __name__ == "__main__":
    typer.run(command)
