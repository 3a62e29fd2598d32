"""SIGTERM under load, again and again: how many requests that were accepted got no reply.

    python -m benchmarks.drains --drains 100 --load 0.8 --results runs/drains.jsonl
    python -m benchmarks.drains --drains 10 --load 10 --results runs/drains-overload.jsonl

A closed loop measures the capacity once. Then a service starts, gets that multiple of it at random times, and SIGTERM
in the middle; the load goes on until the drain delay is nearly over, as a balancer looks away. A request is lost if it
was all sent on a connection that the service had accepted, and the connection ended without a complete reply. Each
drain is a line of `--results` as soon as it is over.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from benchmarks.arrivals import LOST, Answers, Pool, send_at
from benchmarks.images import make_jpegs
from benchmarks.load import closed_loop, request_of
from benchmarks.served import Served, artifact, serve
from service.bench.arrivals import poisson_arrivals

_BEFORE_S = 1.5  # of load, to the signal
_AFTER_S = 0.3  # of the drain delay of 0.5 s


async def drain(served: Served, rate: float, requests: list[bytes], seed: int) -> dict[str, Any]:
    """One drain: what became of the requests."""
    answers = Answers()
    pool = Pool(served.host, served.port, answers)
    times = poisson_arrivals(rate, _BEFORE_S + _AFTER_S, seed)
    stopping = asyncio.create_task(_stop(served.pid))
    await send_at(pool, times, requests)
    await stopping  # a slow service may have answered all before it is asked to stop
    await pool.settle(15.0)
    lost = sum(each.status == LOST and each.sent for each in answers.answers) + pool.outstanding
    statuses = {str(status): number for status, number in sorted(answers.statuses.items())}
    return {"sent": len(times), "lost": lost, "unconnected": answers.refused_connections, "statuses": statuses}


async def _stop(pid: int) -> None:
    await asyncio.sleep(_BEFORE_S)
    os.kill(pid, signal.SIGTERM)


def command(
    drains: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    load: Annotated[float, typer.Option(min=0.01, help="Multiple of the capacity.")] = 0.8,
    model: Annotated[str, typer.Option(help="A variant such as Ti/16, a file, or `bundled`.")] = "Ti/16",
    option: Annotated[list[str] | None, typer.Option(help="A flag for the service.")] = None,
    results: Annotated[Path | None, typer.Option(help="JSON lines, appended.")] = None,
) -> None:
    """A line for each drain, and the sum."""
    path = None if model == "bundled" else Path(model) if model.endswith(".onnx") else artifact(model)
    requests = [request_of(image, "localhost", "/classify?timeout_ms=5000") for image in make_jpegs(224, 224)]
    with serve(path, option or []) as served:
        capacity = asyncio.run(closed_loop(served.host, served.port, requests, 48, 5.0)).requests_per_s
    print(f"capacity {capacity:.1f} requests/s", flush=True)
    lost = bad_exits = 0
    for number in range(drains):
        with serve(path, option or []) as served:
            seen = uvloop.run(drain(served, load * capacity, requests, number))
            ended_s = time.monotonic()
            status = os.waitstatus_to_exitcode(os.waitpid(served.pid, 0)[1])
        seen |= {"drain": number, "exit": status, "exit_after_last_reply_s": round(time.monotonic() - ended_s, 2)}
        lost, bad_exits = lost + seen["lost"], bad_exits + (status != 0)
        print(json.dumps(seen), flush=True)
        if results is not None:
            results.parent.mkdir(parents=True, exist_ok=True)
            with results.open("a") as file:
                file.write(json.dumps(seen) + "\n")
    print(f"{drains} drains at {load:g} x capacity: {lost} lost, {bad_exits} exits other than 0", flush=True)
    sys.exit(1 if lost or bad_exits else 0)


if __name__ == "__main__":
    typer.run(command)
