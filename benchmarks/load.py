"""Load the running service over HTTP, and compare it with the same engine and preprocessing called in a loop.

    python -m benchmarks.load vit-ti-16.onnx --connections 32
    python -m benchmarks.load vit-ti-16.onnx --rate 25

A closed loop keeps `--connections` requests in flight; an open loop (`--rate`) sends at constant intervals whatever the
answers do, so that a slow answer cannot slow the load down (no coordinated omission: latency counts from the moment a
request was due). Each round runs the loop without HTTP (the ceiling) and the service one after the other; the ratio is
taken round by round and the median printed. JPEGs are made by the program: photograph-like noise, quality 90. Client
and service share the machine's cores. Recorded runs are in docs/performance.md.
"""

import asyncio
import json
import os
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.images import make_jpegs
from benchmarks.served import service
from model.headers import ImageLimits
from model.preprocess import PatchSequence, preprocess
from service.batching import assemble
from service.engine import Engine
from service.settings import EngineSettings, Settings


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of load against the service.

    Attributes:
        requests_per_s: answered with 200.
        latencies_s: of each answer.
        statuses: how many answers of each.
        answered: which of the requests, by index, got a 200.
        lateness_s: open loop only, how late each request was sent: of this program, not of the service.
    """

    requests_per_s: float
    latencies_s: list[float]
    statuses: dict[int, int]
    answered: list[int] = field(default_factory=list)
    lateness_s: list[float] = field(default_factory=list)

    def percentile_ms(self, share: float) -> float:
        """Latency that this share of the requests stayed below, milliseconds."""
        return 1000 * float(np.quantile(self.latencies_s, share)) if self.latencies_s else float("nan")


def ceiling(engine: Engine, files: list[bytes], seconds: float, settings: Settings) -> float:
    """Images per second of preprocessing and engine without HTTP: whole batches, the next one decoded meanwhile."""
    spec, limits = engine.model.manifest.preprocessing, ImageLimits()

    def read(data: bytes) -> PatchSequence:
        return preprocess(data, spec, limits)

    patches = max(len(read(data).patches) for data in files)
    batch = max(1, min(settings.max_batch_images, settings.batch_patches(1) // patches))
    source = cycle(files)
    answered = 0
    with ThreadPoolExecutor(settings.decode_threads or os.cpu_count()) as pool:
        ahead = [pool.submit(read, data) for data in islice(source, batch)]
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            images = [future.result() for future in ahead]
            ahead = [pool.submit(read, data) for data in islice(source, batch)]
            engine.run(*assemble(images))
            answered += batch
        return answered / (time.perf_counter() - started)


def request_of(image: bytes, host: str, path: str = "/classify") -> bytes:
    """A whole HTTP/1.1 request with a raw JPEG body."""
    fields = f"Host: {host}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + image


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send one request and read its whole answer; returns the status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head[9:12])


async def closed_loop(host: str, port: int, requests: list[bytes], connections: int, seconds: float) -> Measured:
    """Keep `connections` requests in flight; the first tenth of the time is warm-up and not counted."""
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    answered: list[int] = []
    begin = time.perf_counter() + seconds / 10
    end = begin + seconds
    source = cycle(range(len(requests)))  # of all connections together: the order of the requests is kept

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for index in source:
            sent = time.perf_counter()
            if sent > end:
                break
            status = await exchange(reader, writer, requests[index])
            done = time.perf_counter()
            if begin <= done <= end:
                latencies.append(done - sent)
                statuses[status] = statuses.get(status, 0) + 1
                answered.extend([index] if status == 200 else [])
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return Measured(len(answered) / seconds, latencies, statuses, answered)


async def open_loop(host: str, port: int, requests: list[bytes], rate: float, seconds: float) -> Measured:
    """Send `rate` requests per second at constant intervals; latency counts from when a request was due."""
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    lateness: list[float] = []
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(due: float, request: bytes) -> None:
        pair = idle.pop() if idle else await asyncio.open_connection(host, port)
        status = await exchange(*pair, request)
        latencies.append(time.perf_counter() - due)
        statuses[status] = statuses.get(status, 0) + 1
        idle.append(pair)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for index, request in enumerate(islice(cycle(requests), round(rate * seconds))):
            due = started + index / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            lateness.append(time.perf_counter() - due)
            tasks.create_task(one(due, request))
    elapsed_s = time.perf_counter() - started
    for _, writer in idle:
        writer.close()
    return Measured(statuses.get(200, 0) / elapsed_s, latencies, statuses, lateness_s=lateness)


def command(
    model: Annotated[Path | None, typer.Argument(help="Artifact; default the bundled model.")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Requests in flight, closed loop.")] = 32,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Requests per second: open loop instead.")] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each measurement.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Ceiling and service, one after the other.")] = 3,
    width: Annotated[int, typer.Option(min=1, help="Of the JPEGs, pixels.")] = 224,
    height: Annotated[int, typer.Option(min=1, help="Of the JPEGs, pixels.")] = 224,
    option: Annotated[
        list[str] | None, typer.Option(help="A flag for the service, such as --option=--port=9000.")
    ] = None,
) -> None:
    """Requests per second, latency, and the ratio to the loop without HTTP."""
    settings = Settings()
    files = make_jpegs(width, height)
    engine = Engine(EngineSettings(model=model))
    engine.warm_up()
    print(
        f"{engine.model.manifest.name}, JPEG {width}x{height} of {len(files[0]) / 1000:.0f} kB, {os.cpu_count()} cores"
    )
    ratios = []
    for number in range(1, rounds + 1):
        best = ceiling(engine, files, seconds, settings)
        with service(model, option or []) as (host, port):
            requests = [request_of(image, host) for image in files]
            run = (
                closed_loop(host, port, requests, connections, seconds)
                if rate is None
                else open_loop(host, port, requests, rate, seconds)
            )
            measured = asyncio.run(run)
        ratios.append(measured.requests_per_s / best)
        print(
            f"round {number}: ceiling {best:.1f} images/s, service {measured.requests_per_s:.1f} requests/s, "
            f"ratio {ratios[-1]:.3f}, p50 {measured.percentile_ms(0.5):.1f} ms, "
            f"p99 {measured.percentile_ms(0.99):.1f} ms, statuses {json.dumps(measured.statuses)}"
        )
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    typer.run(command)
