"""Ray Serve beside two replicas of the service without it, on one machine: what the way through Ray costs.

    unshare --net sh -c 'ip link set lo up; python -m benchmarks.cluster'

Three ways to the same two replicas of one core each, all up during the whole run: two `patchserve serve` to which the
client itself deals its connections out, as a proxy would at no cost; Ray with HAProxy; Ray with its proxy in Python.
A measurement is a closed loop; the ways take turns, and the median of the ratios of each round is printed. The idle
ones cost processor time as well: Ray's processes poll. Client and replicas share the cores.
"""

import asyncio
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.images import make_jpegs
from benchmarks.load import closed_loop, request_of
from benchmarks.served import listening, service

_ALONE = ["--engine-threads", "1", "--engine-lanes", "1", "--decode-threads", "1", "--http-workers", "1"]
_COMMON = ["--log-level", "error", "--default-timeout-ms", "20000"]
Address = tuple[str, int]


@contextmanager
def on_ray(model: Path | None, port: int, option: str) -> Iterator[Address]:
    """Two replicas of one core, on a Ray of their own."""
    program = str(Path(sys.executable).with_name("patchserve"))
    command = [program, "cluster", "serve", *([str(model)] if model else []), "--port", str(port), "--no-brown-out"]
    command += ["--min-replicas", "2", "--max-replicas", "2", option, *_COMMON]
    with listening(command, end_s=120) as served:
        yield served.host, served.port


async def requests_per_s(addresses: Sequence[Address], files: list[bytes], connections: int, seconds: float) -> float:
    """All addresses together, each with its share of the connections."""
    share = max(1, connections // len(addresses))
    runs = [
        closed_loop(host, port, [request_of(each, host) for each in files], share, seconds) for host, port in addresses
    ]
    return sum(each.requests_per_s for each in await asyncio.gather(*runs))


def command(
    model: Annotated[Path | None, typer.Argument(help="Artifact; default the bundled model.")] = None,
    connections: Annotated[int, typer.Option(min=2, help="Requests in flight.")] = 32,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each measurement.")] = 8.0,
    rounds: Annotated[int, typer.Option(min=1, help="Of all ways, after one that is not counted.")] = 5,
    port: Annotated[int, typer.Option(help="Of Ray; the next one as well.")] = 8700,
) -> None:
    """Requests per second, and the ratio to the service without Ray."""
    files = make_jpegs(224, 224)
    with ExitStack() as stack:
        ways = {
            "direct": [stack.enter_context(service(model, [*_ALONE, *_COMMON])) for _ in range(2)],
            "haproxy": [stack.enter_context(on_ray(model, port, "--haproxy"))],
            "python": [stack.enter_context(on_ray(model, port + 1, "--no-haproxy"))],
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, addresses in ways.items():
                speed = asyncio.run(requests_per_s(addresses, files, connections, seconds))
                if number:
                    found[name].append(speed)
    print(f"{os.cpu_count()} cores, load at the end {os.getloadavg()[0]:.1f}, {connections} connections")
    for name, speeds in found.items():
        ratio = statistics.median(one / other for one, other in zip(speeds, found["direct"], strict=True))
        print(f"{name}: {statistics.median(speeds):.1f} requests/s, {ratio:.2f} of direct")


if __name__ == "__main__":
    typer.run(command)
