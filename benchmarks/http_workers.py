"""What a request costs with one process and with several, and how much of it falls on the engine process.

    python -m benchmarks.http_workers
    python -m benchmarks.http_workers --workers 1 --workers 2 --workers 4 --connections 64

The engine answers constants at once (see host_cost.py), so what is measured is everything that surrounds it. wrk posts
one 224x224 JPEG as a raw body; the services take turns, and the medians of `--rounds` rounds are printed. CPU time is
that of all processes of a service, and of its engine process alone; requests per CPU-second is what one core does.
With `1` there is one process and no engine process. Client and service share the machine's cores, so requests/s beyond
its cores cannot show here; that the cost of a request stays the same, whatever the number of processes, can.

Linux only; wrk must be installed. Recorded runs are in docs/performance/http-workers.md.
"""

import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.host_cost import (
    Running,
    adopt_orphans,
    cpu_seconds,
    measure,
    requests_of,
    running,
    write_instant_model,
    write_script,
)
from benchmarks.images import make_jpegs


@dataclass(frozen=True, slots=True)
class Turn:
    """One service for a few seconds; CPU time in milliseconds per request."""

    requests_per_s: float
    cpu_ms: float
    engine_cpu_ms: float
    p50_ms: float
    p99_ms: float


def engine_process(service: Running, workers: int) -> int | None:
    """The process that owns the engine: the first that the parent starts."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return int(children[0]) if workers > 1 else None


def take_turn(service: Running, workers: int, script: Path, connections: int, seconds: int) -> Turn:
    """Load one service."""
    engine = engine_process(service, workers)
    before = cpu_seconds(engine) if engine else 0.0
    measured = measure(service, script, connections, seconds)
    engine_s = cpu_seconds(engine) - before if engine else 0.0
    engine_cpu_ms = 1000 * engine_s / (measured.requests_per_s * seconds)
    return Turn(measured.requests_per_s, measured.cpu_ms, engine_cpu_ms, measured.p50_ms, measured.p99_ms)


def command(
    workers: Annotated[list[int] | None, typer.Option(min=1, help="Values of --http-workers; default 1, 2, 4.")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 32,
    seconds: Annotated[int, typer.Option(min=1, help="Of each turn, and of the warm-up.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every service.")] = 5,
) -> None:
    """Medians of interleaved turns, and the ratio of each to the first."""
    counts = workers or [1, 2, 4]
    request = requests_of(make_jpegs(224, 224, 1)[0])[1]
    adopt_orphans()
    with TemporaryDirectory() as name, ExitStack() as stack:
        model = write_instant_model(Path(name) / "instant.onnx")
        script = write_script(Path(name), request)
        services = {
            count: stack.enter_context(running("patchserve", model, request, [f"--http-workers={count}"]))
            for count in counts
        }
        turns: dict[int, list[Turn]] = {count: [] for count in counts}
        for number in range(rounds + 1):  # the first is the warm-up
            for count, service in services.items():
                turn = take_turn(service, count, script, connections, seconds)
                if number:
                    turns[count].append(turn)
        _print(turns, connections, rounds)


def _print(turns: dict[int, list[Turn]], connections: int, rounds: int) -> None:
    print(f"JPEG 224x224, {connections} connections, {os.cpu_count()} cores, medians of {rounds}")
    print(
        "| --http-workers | requests/s | CPU-ms per request | of the engine process | requests per CPU-second "
        "| p50 ms | p99 ms |"
    )
    print("|---|---|---|---|---|---|---|")
    for count, all_of in turns.items():
        middle = {name: _median(all_of, name) for name in Turn.__slots__}
        print(
            f"| {count} | {middle['requests_per_s']:.0f} | {middle['cpu_ms']:.3f} | {middle['engine_cpu_ms']:.3f} | "
            f"{1000 / middle['cpu_ms']:.0f} | {middle['p50_ms']:.1f} | {middle['p99_ms']:.1f} |"
        )


def _median(turns: Sequence[Turn], name: str) -> float:
    return statistics.median(getattr(turn, name) for turn in turns)


if __name__ == "__main__":
    typer.run(command)
