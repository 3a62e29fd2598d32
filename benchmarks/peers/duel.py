"""Servers that run at the same time and are loaded in turns, so that a slow minute of the machine falls on all alike.

    python -m benchmarks.peers.duel --environments ~/peers --server mosec
    python -m benchmarks.peers.duel --environments ~/peers --server mosec --server ray --model Ti/16 --connections 32

`run` visits one server after the other, minutes apart, and finds out which are near; this one compares those. Ratios
are those of one round, the median of the rounds with the lowest and the highest. A server idles while others have
their turn.
"""

import os
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.peers import ceiling, processes
from benchmarks.peers.catalog import OURS, SERVERS
from benchmarks.peers.load import CONTENT_TYPES, load, write_bodies
from benchmarks.peers.models import MODELS, prepare
from benchmarks.peers.photos import WORKLOADS, photos_in
from benchmarks.peers.plan import CONNECTIONS, seconds_of
from benchmarks.peers.results import Cell, Result
from benchmarks.peers.servers.classifier import batch_limit
from benchmarks.peers.started import Place, started, url_of
from benchmarks.peers.visit import refusals
from benchmarks.served import Served

_FIRST_PORT = 18200
_DRAIN_TIMEOUT_S = 40.0
Turns = dict[str, list[Result]]  # by the name of a server


@contextmanager
def _running(names: Sequence[str], artifact: Path, patches: int, place: Place) -> Iterator[dict[str, Served]]:
    """All of them, ready for images of so many patches.

    Raises:
        SystemExit: if one does not start.
    """
    with ExitStack() as stack:
        rivals: dict[str, Served] = {}
        for name, port in zip(names, count(_FIRST_PORT, 10), strict=False):  # some servers take the next four too
            limit = batch_limit(patches, SERVERS[name].batch_patches)
            running = stack.enter_context(started(SERVERS[name], artifact, limit, place, port))
            if running.error:
                raise SystemExit(f"{name}: {running.error}")
            rivals[name] = Served("127.0.0.1", port, running.pid)
        yield rivals
        for rival in rivals.values():  # at once: each would wait for the end of all others
            os.kill(rival.pid, signal.SIGTERM)


def _take_turn(rival: Served, cell: Cell, images: Sequence[bytes], seconds: float, place: Place) -> Result:
    """Raises: SystemExit: for any answer that is no success."""
    server = SERVERS[cell.server]
    bodies = write_bodies(images, server.form, place.work)
    before_s = rival.cpu_s()
    loaded = load(url_of(server, rival.port), CONTENT_TYPES[server.form], bodies, cell.connections, seconds)
    if problem := refusals(loaded):
        raise SystemExit(f"{cell.server}: {problem}")
    processes.wait_idle(_DRAIN_TIMEOUT_S)
    cpu_ms = 1000 * (rival.cpu_s() - before_s) / loaded.requests
    return Result(cell, loaded.requests / loaded.duration_s, loaded.p50_ms, loaded.p99_ms, cpu_ms)


def _take_turns(rivals: Mapping[str, Served], cells: Sequence[Cell], take: Callable[[Served, Cell], Result]) -> Turns:
    """Of each; those of round 0 are not counted."""
    turns: Turns = {name: [] for name in rivals}
    for cell in cells:
        result = take(rivals[cell.server], cell)
        turns[cell.server] += [result] if cell.round else []
    return turns


def _print(cell: str, turns: Turns) -> None:
    ours = [turn.requests_per_s for turn in turns[OURS]]
    for name, taken in turns.items():
        ratios = [one / turn.requests_per_s for one, turn in zip(ours, taken, strict=True)]
        told = "" if name == OURS else f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        rate, cpu_ms, p50_ms, p99_ms = (
            statistics.median(getattr(turn, field) for turn in taken)
            for field in ("requests_per_s", "cpu_ms", "p50_ms", "p99_ms")
        )
        print(f"| {cell} | {name} | {rate:.1f} | {told} | {cpu_ms:.2f} | {p50_ms:.1f} | {p99_ms:.0f} |", flush=True)


def command(
    environments: Annotated[Path, typer.Option(help="Folder with one virtual environment per peer, by its name.")],
    server: Annotated[list[str], typer.Option(help="To compare with; more than once.")],
    model: Annotated[list[str] | None, typer.Option(help="bundled, or a variant; more than once.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(WORKLOADS)}.")] = None,
    connections: Annotated[list[int] | None, typer.Option(min=1, help="Requests in flight.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server in each cell, after one to warm up.")] = 3,
) -> None:
    """Medians of interleaved turns."""
    processes.adopt_orphans()
    print("| model | JPEGs | connections | server | requests/s | patchserve's ratio | CPU-ms | p50 ms | p99 ms |")
    print("|---|---|---:|---|---:|---|---:|---:|---:|")
    with TemporaryDirectory() as name:
        place = Place(environments.absolute(), Path(name))
        for each, photos in product(model or MODELS, workload or WORKLOADS):
            artifact, images = prepare(each, place.work, None).artifact, photos_in(place.work / photos)
            _, patches = ceiling.best_classes(artifact, images)
            with _running([OURS, *server], artifact, patches, place) as rivals:
                for number in connections or CONNECTIONS:
                    cells = [Cell(each, photos, number, who, turn) for turn in range(rounds + 1) for who in rivals]
                    taking = partial(_take_turn, images=images, seconds=seconds_of(each, number), place=place)
                    _print(f"{each} | {photos} | {number}", _take_turns(rivals, cells, taking))


if __name__ == "__main__":
    typer.run(command)
