"""One process beside a complete service for each core (`--replicas`), in turns.

    python -m benchmarks.replicas
    python -m benchmarks.replicas --model Ti/16 --seconds 3
    python -m benchmarks.replicas --size 1600x1200 --connections 32

wrk posts JPEGs as raw bodies. The services take turns at each number of connections, and the medians of `--rounds`
rounds are printed, with the ratio to the first service as the median over the rounds. CPU time is that of all
processes of a service. "Others" is the share of the machine's cores that neither the service nor wrk took but
something else did. On a machine that is not quiet `setsid python -m benchmarks.replicas --go-first` (as root) lets
service and client go before everything else in their turns, by the kernel's autogroup of their session (man 7 sched).
Memory is what all processes filled at the end, see `benchmarks.served.Served.own_mb`. Client and service share the
cores.

Linux only; wrk must be installed. Recorded runs are in docs/performance/replicas.md.
"""

import os
import resource
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.images import make_jpegs
from benchmarks.peers.load import load_answered, write_bodies
from benchmarks.served import Served, artifact, serve

_AUTOGROUP = Path("/proc/self/autogroup")
_PAUSE_S = 1.0
Cell = tuple[int, int]  # connections, replicas


@dataclass(frozen=True, slots=True)
class Turn:
    """One service for a few seconds; `others` is a share of all cores."""

    requests_per_s: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    others: float


def take_turn(service: Served, bodies: Sequence[Path], connections: int, seconds: int) -> Turn:
    """Load one service.

    Raises:
        SystemExit: if any answer was no success.
    """
    started_s, all_before, client_before, before = time.monotonic(), _busy_s(), _client_s(), service.cpu_s()
    url = f"http://{service.host}:{service.port}/classify?timeout_ms=30000"
    loaded = load_answered(url, bodies, connections, seconds)
    own_s = service.cpu_s() - before
    others_s = _busy_s() - all_before - own_s - (_client_s() - client_before)
    return Turn(
        loaded.requests / loaded.duration_s,
        1000 * own_s / loaded.requests,
        loaded.p50_ms,
        loaded.p99_ms,
        max(0.0, others_s / (time.monotonic() - started_s) / (os.cpu_count() or 1)),
    )


def _busy_s() -> float:
    """Processor time of everything on this machine, seconds."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _client_s() -> float:
    """Processor time of this process and of what it has started and waited for, seconds."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


@contextmanager
def going_first(wanted: bool) -> Iterator[None]:
    """Let this session go before all others for a turn, and then leave the machine to them for a moment."""
    if not wanted:
        yield
        return
    _AUTOGROUP.write_text("-20")
    try:
        yield
    finally:
        _AUTOGROUP.write_text("0")
        time.sleep(_PAUSE_S)


def command(
    model: Annotated[str, typer.Option(help="bundled, or a variant such as Ti/16 with random weights.")] = "bundled",
    size: Annotated[str, typer.Option(help="Of the JPEGs, WIDTHxHEIGHT.")] = "224x224",
    replicas: Annotated[list[int] | None, typer.Option(min=1, help="Values of --replicas; default 1, 2.")] = None,
    connections: Annotated[list[int] | None, typer.Option(min=1, help="Default 1, 8, 32, 128.")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="Of each turn.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every service and number of connections.")] = 5,
    go_first: Annotated[bool, typer.Option("--go-first", help="Before everything else on the machine.")] = False,
) -> None:
    """Medians of interleaved turns."""
    counts, numbers = replicas or [1, 2], connections or [1, 8, 32, 128]
    width, height = map(int, size.split("x"))
    turns: dict[Cell, list[Turn]] = {(number, count): [] for number in numbers for count in counts}
    with TemporaryDirectory() as name, ExitStack() as stack:
        bodies = write_bodies(make_jpegs(width, height), "raw", Path(name))
        path = None if model == "bundled" else artifact(model)
        services = {
            count: stack.enter_context(
                serve(path, [f"--replicas={count}", *(["--http-workers=1"] if count == 1 else [])])
            )
            for count in counts
        }
        for service in services.values():
            take_turn(service, bodies, max(numbers), seconds)
        for _ in range(rounds):
            for (number, count), taken in turns.items():
                with going_first(go_first):
                    taken.append(take_turn(services[count], bodies, number, seconds))
        memory = {count: service.own_mb() for count, service in services.items()}
    print(f"{model}, JPEG {size}, {os.cpu_count()} cores, medians of {rounds} turns of {seconds} s")
    report(turns, counts[0])
    print("memory, MB: " + ", ".join(f"{count}: {mb:.0f}" for count, mb in memory.items()))


def report(turns: Mapping[Cell, Sequence[Turn]], first: int) -> None:
    """Print the table."""
    print("| connections | replicas | requests/s | ratio (all rounds) | CPU-ms | p50 ms | p99 ms | others |")
    print("|---:|---:|---:|---|---:|---:|---:|---:|")
    for (number, count), taken in turns.items():
        rate, cpu_ms, p50_ms, p99_ms, others = (
            statistics.median(getattr(turn, name) for turn in taken) for name in Turn.__slots__
        )
        base = turns[number, first]
        ratios = sorted(one.requests_per_s / two.requests_per_s for one, two in zip(taken, base, strict=True))
        told = f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})" if count != first else ""
        print(
            f"| {number} | {count} | {rate:.0f} | {told} | {cpu_ms:.2f} | {p50_ms:.1f} | {p99_ms:.0f} | {others:.0%} |"
        )


if __name__ == "__main__":
    typer.run(command)
