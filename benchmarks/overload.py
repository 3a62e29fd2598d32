"""Load from half to ten times of what the service can do: what it still answers, how fast it refuses, how it recovers.

    python -m benchmarks.overload                              # ViT-Ti/16
    python -m benchmarks.overload --model B/16 --seconds 30
    python -m benchmarks.overload --rounds 5 --seconds 8       # where the machine's speed moves

First a closed loop measures the capacity. Then, for each of `--load`, requests arrive at random (Poisson) at that
multiple of it, whatever the answers do; latency counts from when a request was due (`arrivals.py`). Each asks for an
answer within 95 % of `--deadline-ms`, and is good if its 200 is here before the deadline. Afterwards half of the
capacity is sent for ten seconds: recovery ends with the first half second that sees no refusal and no latency above
twice the 99th percentile at the lowest load. All the while `/livez`, `/readyz` and `/metrics` are asked in turn,
each on a connection of its own, twenty times a second. `--rounds` repeats all of it, capacity included: goodput is
compared within a round, and its goal is for the median of the rounds; the other goals are for every round.

Client and service share the cores, which a client on another machine would not do. So the client's own processor time
is measured in every stretch, and `share` compares goodput per core that was left to the service with that of the best
stretch; `raw` is the plain ratio. Where the client was about as late as the worst probe took, the machine stood still.
JPEGs of 224x224 as raw bodies.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import uvloop

from benchmarks.arrivals import LOST, Answers, Pool, constant, send_at
from benchmarks.images import make_jpegs
from benchmarks.load import closed_loop, request_of
from benchmarks.served import Served, artifact, serve
from service.bench.arrivals import poisson_arrivals

_PROBES = ("/livez", "/readyz", "/metrics")
_PROBES_PER_S = 20.0
_WINDOW_S = 0.5
_RECOVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """One load.

    Attributes:
        load: multiple of the capacity; 0 for the closed loop.
        seconds: its length.
        deadline_s: of each request.
        cores_left: of the machine, without this program.
        started_s: when the first request was due.
        requests, probes: their answers.
    """

    load: float
    seconds: float
    deadline_s: float
    cores_left: float
    started_s: float
    requests: Answers
    probes: Answers

    @property
    def goodput(self) -> float:
        """200 within the deadline, per second."""
        return (
            sum(each.status == 200 and each.latency_s <= self.deadline_s for each in self.requests.answers)
            / self.seconds
        )

    @property
    def refused(self) -> int:
        """Requests that the service shed."""
        return self.requests.statuses[429]

    @property
    def errors(self) -> int:
        """Replies with a 5xx status, to requests and to probes."""
        return sum(number for each in (self.requests, self.probes) for s, number in each.statuses.items() if s >= 500)

    @property
    def lost(self) -> int:
        """Requests and probes without a reply."""
        return sum(each.statuses[LOST] + each.refused_connections for each in (self.requests, self.probes))


async def stretch(
    served: Served, load: float, rate: float, seconds: float, requests: list[bytes], deadline_s: float, *, settle: bool
) -> Stretch:
    """Send `rate` requests per second, and wait for the last answers unless something is to follow at once."""
    answers, probed = Answers(), Answers()
    pool = Pool(served.host, served.port, answers)
    prober = Pool(served.host, served.port, probed, fresh=True)
    heads = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in _PROBES]
    own_s, began = time.process_time(), time.perf_counter()
    probing = asyncio.create_task(send_at(prober, constant(_PROBES_PER_S, seconds), heads))
    started_s = await send_at(pool, poisson_arrivals(rate, seconds, seed=int(load * 10)), requests)
    own_cores = (time.process_time() - own_s) / (time.perf_counter() - began)
    await probing
    if settle:
        await pool.settle(deadline_s + 10.0)
    pool.close()
    return Stretch(load, seconds, deadline_s, (os.cpu_count() or 1) - own_cores, started_s, answers, probed)


@dataclass(frozen=True, slots=True)
class Round:
    """Every load once.

    Attributes:
        stretches: the loads, and at last half of the capacity at once after the highest.
        recovered_s: see `recovery_s`.
    """

    stretches: list[Stretch]
    recovered_s: float

    @property
    def top(self) -> Stretch:
        """The highest load."""
        return max(self.stretches, key=lambda each: each.load)

    @property
    def best(self) -> Stretch:
        """The one with the most goodput for the cores that were left."""
        return max(self.stretches, key=lambda each: each.goodput / each.cores_left)

    def share(self, stretch: Stretch) -> float:
        """Goodput of one of them, by that of the best."""
        return stretch.goodput / stretch.cores_left / (self.best.goodput / self.best.cores_left)


def recovery_s(after: Stretch, limit_s: float) -> float:
    """Seconds after the overload until nothing was refused and nothing slow, by half seconds; infinite if never."""
    for window in range(round(_RECOVERY_S / _WINDOW_S)):
        begin = after.started_s + window * _WINDOW_S
        inside = [each for each in after.requests.answers if begin <= each.due_s < begin + _WINDOW_S]
        if inside and all(each.status == 200 and each.latency_s <= limit_s for each in inside):
            return window * _WINDOW_S
    return float("inf")


async def measure(
    served: Served, loads: list[float], seconds: float, requests: list[bytes], deadline_s: float
) -> Round:
    """All stretches, and the seconds of recovery after the last."""
    own_s, began = time.process_time(), time.perf_counter()
    closed = await closed_loop(served.host, served.port, requests, 48, seconds)
    own_cores = (time.process_time() - own_s) / (time.perf_counter() - began)
    capacity = closed.requests_per_s
    print(
        f"capacity {capacity:.1f} requests/s, closed loop of 48 connections, client {own_cores:.2f} cores", flush=True
    )
    stretches: list[Stretch] = []
    for load in loads:
        last = load == loads[-1]
        stretches.append(await stretch(served, load, load * capacity, seconds, requests, deadline_s, settle=not last))
    after = await stretch(served, 0.5, 0.5 * capacity, _RECOVERY_S, requests, deadline_s, settle=True)
    normal = min(stretches, key=lambda each: each.load)
    limit_s = 2 * normal.requests.percentile_ms(0.99, 200) / 1000
    return Round([*stretches, after], recovery_s(after, limit_s))


def _print_table(measured: Round) -> None:
    print(
        "| load | sent | goodput/s | share | raw | statuses | lost | 200: p50 / p99 ms | 429: p50 / p99 ms "
        "| probes: p99 / worst ms | client cores | client late: p99 / worst ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    highest = max(each.goodput for each in measured.stretches)
    for each in measured.stretches:
        seen, probes = each.requests, each.probes
        late_s = [*seen.late_s, *probes.late_s]
        cells = [
            f"{each.load:g}",
            f"{len(seen.late_s)}",
            f"{each.goodput:.1f}",
            f"{measured.share(each):.3f}",
            f"{each.goodput / highest:.3f}",
            ", ".join(f"{number} x {status or 'none'}" for status, number in sorted(seen.statuses.items())),
            f"{each.lost}",
            f"{seen.percentile_ms(0.5, 200):.0f} / {seen.percentile_ms(0.99, 200):.0f}",
            f"{seen.percentile_ms(0.5, 429):.1f} / {seen.percentile_ms(0.99, 429):.1f}",
            f"{probes.percentile_ms(0.99):.1f} / {probes.percentile_ms(1.0):.1f}",
            f"{(os.cpu_count() or 1) - each.cores_left:.2f}",
            f"{1000 * float(np.quantile(late_s, 0.99)):.1f} / {1000 * max(late_s):.1f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"recovered {measured.recovered_s:.1f} s after the last load", flush=True)


def missed(rounds: Sequence[Round]) -> list[str]:
    """The goals that were not reached."""
    stretches = [each for measured in rounds for each in measured.stretches]
    tops = [measured.top for measured in rounds]
    shares = [measured.share(measured.top) for measured in rounds]
    probes = [each.probes.percentile_ms(1.0) for each in stretches if each.probes.answers]
    goals = {
        "goodput at the highest load >= 95 % of the peak": statistics.median(shares) >= 0.95,
        "p99 of refusals < 20 ms": all(not top.refused or top.requests.percentile_ms(0.99, 429) < 20 for top in tops),
        "recovery < 2 s": max(measured.recovered_s for measured in rounds) < 2,
        "probes < 100 ms": max(probes) < 100,
        "no 5xx": not sum(each.errors for each in stretches),
        "nothing lost": not sum(each.lost for each in stretches),
    }
    return [goal for goal, reached in goals.items() if not reached]


def command(
    model: Annotated[str, typer.Option(help="A variant such as Ti/16, a file, or `bundled`.")] = "Ti/16",
    load: Annotated[list[float] | None, typer.Option(help="Multiple of the capacity.")] = None,
    seconds: Annotated[float, typer.Option(min=2, help="Of each load.")] = 15.0,
    deadline_ms: Annotated[int, typer.Option(min=10, help="Of each request.")] = 2000,
    rounds: Annotated[int, typer.Option(min=1, help="Of all loads.")] = 1,
    option: Annotated[list[str] | None, typer.Option(help="A flag for the service.")] = None,
) -> None:
    """A row for each load and the recovery, round by round, and the goals that were missed."""
    path = None if model == "bundled" else Path(model) if model.endswith(".onnx") else artifact(model)
    asked = f"/classify?timeout_ms={round(0.95 * deadline_ms)}"
    requests = [request_of(image, "localhost", asked) for image in make_jpegs(224, 224)]
    loads, measured = load or [0.5, 1, 3, 10], list[Round]()
    with serve(path, option or []) as served:
        for _ in range(rounds):
            measured.append(uvloop.run(measure(served, loads, seconds, requests, deadline_ms / 1000)))
            _print_table(measured[-1])
    print(f"goodput at the highest load by round: {', '.join(f'{each.share(each.top):.3f}' for each in measured)}")
    wrong = missed(measured)
    print(f"missed: {'; '.join(wrong) or 'nothing'}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(command)
