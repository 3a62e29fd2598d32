"""Latency beside its parts: the engine alone, preprocessing alone, the service; then the service at half load.

    python -m benchmarks.latency               # ViT-Ti/16, ViT-B/16 and the bundled model
    python -m benchmarks.latency --model Ti/16

One connection: in turns, for a quarter of a second each, the engine on one prepared image, preprocessing of one JPEG,
both one after the other, and one request after another to the service. All in one run, medians. What the service adds
is its median less the medians of its parts. An open loop then sends at half of the rate that a closed loop with 32
connections reached in the same run, at constant intervals; latency counts from when a request was due. How late this
program was with its own sending is printed: it must be small beside the latency. JPEGs are 224x224, raw bodies.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.images import make_jpegs
from benchmarks.load import Measured, closed_loop, exchange, open_loop, request_of
from benchmarks.served import Served, artifact, serve
from model.headers import ImageLimits
from model.preprocess import preprocess
from service.batching import assemble
from service.engine import Engine
from service.settings import EngineSettings

_TURN_S = 0.25
_LIMITS = ImageLimits()
_PATH = "/classify?timeout_ms=30000"  # 32 images at once take B/16 longer than the default deadline


def parts(model: Path | None, file: bytes) -> dict[str, Callable[[], object]]:
    """What a request is made of, without HTTP and queue."""
    engine = Engine(EngineSettings(model=model))
    engine.warm_up()
    spec = engine.model.manifest.preprocessing
    batch = assemble([preprocess(file, spec, _LIMITS)])
    return {
        "engine": lambda: engine.run(*batch),
        "preprocessing": lambda: preprocess(file, spec, _LIMITS),
        "both": lambda: engine.run(*assemble([preprocess(file, spec, _LIMITS)])),
    }


def repeat(work: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        work()
        taken.append(time.perf_counter() - started)
    return taken


async def one_connection(
    served: Served, request: bytes, works: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of every part and of the service, in turns; the first turn is a warm-up."""
    reader, writer = await asyncio.open_connection(served.host, served.port)
    taken: dict[str, list[float]] = {name: [] for name in [*works, "service"]}
    for turn in range(rounds + 1):
        for name, work in works.items():
            seconds = repeat(work, _TURN_S)
            taken[name] += seconds if turn else []
        end = time.perf_counter() + _TURN_S
        while (started := time.perf_counter()) < end:
            status = await exchange(reader, writer, request)
            if status != 200:
                raise SystemExit(f"the service answered {status}")
            taken["service"] += [time.perf_counter() - started] if turn else []
    writer.close()
    return taken


async def half_load(served: Served, requests: list[bytes], seconds: float) -> tuple[float, Measured, float]:
    """(capacity in requests per second, the open loop at half of it, CPU-ms of this program per request of it)."""
    capacity = await closed_loop(served.host, served.port, requests, 32, seconds)
    own_s = time.process_time()
    half = await open_loop(served.host, served.port, requests, capacity.requests_per_s / 2, seconds)
    own_s = time.process_time() - own_s
    if set(capacity.statuses) | set(half.statuses) != {200}:
        raise SystemExit(f"not every request was answered: {capacity.statuses}, {half.statuses}")
    return capacity.requests_per_s, half, 1000 * own_s / len(half.latencies_s)


def command(
    model: Annotated[list[str] | None, typer.Option(help="Variants such as Ti/16, a file, or `bundled`.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each part, and open loops.")] = 12,
    seconds: Annotated[float, typer.Option(min=1, help="Of each closed and each open loop.")] = 6.0,
    loops: Annotated[int, typer.Option(min=1, help="Closed and open loops, one after the other.")] = 3,
    option: Annotated[list[str] | None, typer.Option(help="A flag for the service.")] = None,
) -> None:
    """Two tables a model."""
    for name in model or ["Ti/16", "B/16", "bundled"]:
        path = None if name == "bundled" else Path(name) if name.endswith(".onnx") else artifact(name)
        files = make_jpegs(224, 224)
        requests = [request_of(file, "localhost", _PATH) for file in files]
        with serve(path, option or []) as served:
            taken = asyncio.run(one_connection(served, requests[0], parts(path, files[0]), rounds))
            halves = [asyncio.run(half_load(served, requests, seconds)) for _ in range(loops)]
        _report_parts(name, taken)
        _report_halves(halves)


def _report_parts(name: str, taken: dict[str, list[float]]) -> None:
    middle = {part: 1000 * statistics.median(each) for part, each in taken.items()}
    print(f"\n{name}, one connection: p50 ms (requests: {len(taken['service'])})")
    print("| engine | preprocessing | both in one thread | service | service adds | p99 of the service |")
    print("|---|---|---|---|---|---|")
    added = middle["service"] - middle["engine"] - middle["preprocessing"]
    p99 = 1000 * float(np.quantile(taken["service"], 0.99))
    cells = [f"{middle[part]:.2f}" for part in ("engine", "preprocessing", "both", "service")]
    print(f"| {' | '.join(cells)} | **{added:+.2f}** | {p99:.2f} |", flush=True)


def _report_halves(halves: list[tuple[float, Measured, float]]) -> None:
    print("| capacity, requests/s | sent | p50 ms | p99 ms | p99 / p50 | this program late, p99 ms | its CPU-ms |")
    print("|---|---|---|---|---|---|---|")
    for capacity, half, own in halves:
        p50, p99 = half.percentile_ms(0.5), half.percentile_ms(0.99)
        late = 1000 * float(np.quantile(half.lateness_s, 0.99))
        speeds = f"{capacity:.1f} | {capacity / 2:.1f} | {p50:.1f} | {p99:.1f}"
        print(f"| {speeds} | **{p99 / p50:.2f}** | {late:.2f} | {own:.2f} |")
    ratios = [half.percentile_ms(0.99) / half.percentile_ms(0.5) for _, half, _ in halves]
    print(f"median p99 / p50 {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    typer.run(command)
