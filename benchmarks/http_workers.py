"""What a request costs with one process and with several, and how much of it falls on the engine process.

    python -m benchmarks.http_workers
    python -m benchmarks.http_workers --workers 1 --workers 2 --connections 64

The engine answers constants at once and has one lane (see host_cost.py), so what is measured is everything that
surrounds it. wrk posts 224x224 JPEGs as raw bodies; the services take turns, and the medians of `--rounds` rounds are
printed. CPU time is that of all processes of a service, and of its engine process alone; requests per CPU-second is
what one core does. With `1` there is one process and no engine process. Client and service share the machine's cores,
so requests/s beyond its cores cannot show here; that the cost of a request stays the same, whatever the number of
processes, can.

Linux only; wrk must be installed. Recorded runs are in docs/performance/http-workers.md.
"""

import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.host_cost import write_instant_model
from benchmarks.images import make_jpegs
from benchmarks.peers.load import load_answered, write_bodies
from benchmarks.served import Served, process_cpu_s, serve


@dataclass(frozen=True, slots=True)
class Turn:
    """One service for a few seconds; CPU time in milliseconds per request."""

    requests_per_s: float
    cpu_ms: float
    engine_cpu_ms: float
    p50_ms: float
    p99_ms: float


def take_turn(service: Served, bodies: Sequence[Path], connections: int, seconds: int) -> Turn:
    """Load one service.

    Raises:
        SystemExit: if any answer was no success.
    """
    engine = next(iter(service.children()), None)
    before, engine_before = service.cpu_s(), process_cpu_s(engine) if engine else 0.0
    url = f"http://{service.host}:{service.port}/classify"
    loaded = load_answered(url, bodies, connections, seconds)
    engine_s = process_cpu_s(engine) - engine_before if engine else 0.0
    return Turn(
        loaded.requests / loaded.duration_s,
        1000 * (service.cpu_s() - before) / loaded.requests,
        1000 * engine_s / loaded.requests,
        loaded.p50_ms,
        loaded.p99_ms,
    )


def command(
    workers: Annotated[list[int] | None, typer.Option(min=1, help="Values of --http-workers; default 1, 2, 4.")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 32,
    seconds: Annotated[int, typer.Option(min=1, help="Of each turn, and of the warm-up.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every service.")] = 5,
) -> None:
    """Medians of interleaved turns."""
    counts = workers or [1, 2, 4]
    turns: dict[int, list[Turn]] = {count: [] for count in counts}
    with TemporaryDirectory() as name, ExitStack() as stack:
        bodies = write_bodies(make_jpegs(224, 224), "raw", Path(name))
        model = write_instant_model(Path(name) / "instant.onnx")
        services = {
            count: stack.enter_context(serve(model, [f"--http-workers={count}", "--engine-lanes=1"]))
            for count in counts
        }
        for number in range(rounds + 1):  # the first is the warm-up
            for count, service in services.items():
                turn = take_turn(service, bodies, connections, seconds)
                turns[count] += [turn] if number else []
    print(f"JPEG 224x224, {connections} connections, {os.cpu_count()} cores, medians of {rounds}")
    print("| --http-workers | requests/s | CPU-ms per request | of the engine process | p50 ms | p99 ms | per CPU-s |")
    print("|---|---|---|---|---|---|---|")
    for count, all_of in turns.items():
        rate, cpu_ms, engine_ms, p50_ms, p99_ms = (
            statistics.median(getattr(turn, each.name) for turn in all_of) for each in fields(Turn)
        )
        latency = f"{p50_ms:.1f} | {p99_ms:.1f}"
        print(f"| {count} | {rate:.0f} | {cpu_ms:.2f} | {engine_ms:.2f} | {latency} | {1000 / cpu_ms:.0f} |")


if __name__ == "__main__":
    typer.run(command)
