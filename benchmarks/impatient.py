"""Clients that ignore `Retry-After`: what is still answered while refused ones ask again at once.

    python -m benchmarks.impatient                    # ViT-Ti/16, 16 to 512 connections

A closed loop: every connection sends its next request as soon as it has a reply, whatever the reply was. Up to the
connections that the default deadline allows nobody is refused; beyond, all others come back thousands of times a
second. The answers a second are compared with those to the fewest connections. 224x224 JPEGs as raw bodies; client and
service share the cores.
"""

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from benchmarks.images import make_jpegs
from benchmarks.load import closed_loop, request_of
from benchmarks.served import artifact, serve


def command(
    model: Annotated[str, typer.Option(help="A variant such as Ti/16, a file, or `bundled`.")] = "Ti/16",
    connections: Annotated[list[int] | None, typer.Option(min=1)] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of each number of connections.")] = 8.0,
    option: Annotated[list[str] | None, typer.Option(help="A flag for the service.")] = None,
) -> None:
    """A row for each number of connections."""
    path = None if model == "bundled" else Path(model) if model.endswith(".onnx") else artifact(model)
    requests = [request_of(image, "localhost") for image in make_jpegs(224, 224)]
    print("| connections | answered/s | of the first row | refused/s | other statuses |\n|---|---|---|---|---|")
    first = 0.0
    with serve(path, option or []) as served:
        for number in connections or [16, 32, 64, 128, 512]:
            seen = uvloop.run(closed_loop(served.host, served.port, requests, number, seconds))
            first = first or seen.requests_per_s
            others = {status: count for status, count in seen.statuses.items() if status not in {200, 429}}
            print(
                f"| {number} | {seen.requests_per_s:.1f} | {seen.requests_per_s / first:.2f} "
                f"| {seen.statuses.get(429, 0) / seconds:.0f} | {others or 'none'} |",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(command)
