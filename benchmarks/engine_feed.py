"""How many images the engine process takes from its HTTP processes, when HTTP, decoding and the model cost no time.

    python -m benchmarks.engine_feed
    python -m benchmarks.engine_feed --feeders 8 --max-batch-patches 16384

Each feeder is a process that submits images of 196 patches which are already in shared memory, `--waiting` at a time,
and takes the answers; the model answers constants (see host_cost.py). Printed are images/s and the CPU time of an image
in the engine process (receiving, planning, gathering the batch, answering) and in the feeders. One engine process can
serve no more than 1,000 / its CPU-milliseconds images per second.

Linux only. Recorded runs are in docs/performance/http-workers.md.
"""

import asyncio
import multiprocessing
import os
import socket
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
import uvloop

from benchmarks.host_cost import write_instant_model
from benchmarks.served import process_cpu_s
from model.preprocess import PatchSequence
from service.loaded import open_engine
from service.processes.board import Board, Column
from service.processes.engine_process import run_engine_process
from service.processes.follower import Follower
from service.processes.shared import ENGINE_ROW, Seat, Shared, reserve
from service.settings import Settings

_GRID = (14, 14)
_SLAB_BYTES = 64 << 20
_FORK = multiprocessing.get_context("fork")


async def _feed(seat: Seat, waiting: int, seconds: float) -> int:
    """Submit for a while; returns how many images were answered."""
    follower = Follower(seat, 1, lambda: True, lambda _: None, lambda _: None)
    await follower.greet()
    [[behind]] = follower.versions().values()
    seat.slab.cut([behind.model.manifest.preprocessing])
    await follower.open()
    end_s = time.monotonic() + seconds

    async def one_after_the_other() -> int:
        answered = 0
        while time.monotonic() < end_s:
            place = behind.memory.take(_GRID[0] * _GRID[1])
            await behind.queue.submit(PatchSequence(place, _GRID, 224, 224, "JPEG"), end_s + 10)
            answered += 1
        return answered

    return sum(await asyncio.gather(*(one_after_the_other() for _ in range(waiting))))


def _run_feeder(shared: Shared, seat: Seat, waiting: int, seconds: float, results: object) -> None:
    shared.keep_seat(seat)
    before = time.process_time()
    answered = uvloop.run(_feed(seat, waiting, seconds))
    results.put((answered, time.process_time() - before))  # type: ignore[attr-defined]


def measure(settings: Settings, feeders: int, waiting: int, seconds: float) -> tuple[float, float, float]:
    """(images/s, CPU-ms of an image in the engine process, the same in the feeders)."""
    shared = reserve(Board(feeders), [socket.socket() for _ in range(feeders)], _SLAB_BYTES, _FORK.Pipe(duplex=False))
    report, their_end = _FORK.Pipe(duplex=False)
    engine = _FORK.Process(target=run_engine_process, args=(settings, shared, their_end, 1, [0] * feeders, open_engine))
    engine.start()
    if reason := report.recv():
        raise SystemExit(reason)
    shared.board.write(ENGINE_ROW, Column.LIFE, 1)
    results = _FORK.SimpleQueue()
    before = process_cpu_s(engine.pid or 0)
    for seat in shared.seats:
        _FORK.Process(target=_run_feeder, args=(shared, seat, waiting, seconds, results)).start()
    all_of = [results.get() for _ in shared.seats]
    engine_s = process_cpu_s(engine.pid or 0) - before
    engine.kill()
    engine.join()
    answered = sum(count for count, _ in all_of)
    return answered / seconds, 1000 * engine_s / answered, 1000 * sum(used for _, used in all_of) / answered


def command(
    feeders: Annotated[list[int] | None, typer.Option(min=1, help="HTTP processes; default 1, 2, 4.")] = None,
    waiting: Annotated[int, typer.Option(min=1, max=100, help="Images of each feeder without an answer.")] = 64,
    max_batch_patches: Annotated[int, typer.Option(min=196, help="As of the service.")] = 2048,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each number of feeders.")] = 3,
) -> None:
    """Images per second through the engine process."""
    with TemporaryDirectory() as name:
        model = write_instant_model(Path(name) / "instant.onnx")
        # One lane, as in front of a GPU: several would halve the batches of an engine that has nothing to compute.
        settings = Settings(model=model, engine_lanes=1, max_batch_patches=max_batch_patches, log_level="error")
        turns: dict[int, list[tuple[float, float, float]]] = {count: [] for count in feeders or [1, 2, 4]}
        for _ in range(rounds):
            for count, taken in turns.items():
                taken.append(measure(settings, count, waiting, seconds))
    print(f"{os.cpu_count()} cores, {waiting} images waiting for each feeder, medians of {rounds}")
    print("| feeders | images/s | CPU-ms per image, engine process | CPU-ms per image, feeders |\n|---|---|---|---|")
    for count, taken in turns.items():
        rate, engine_ms, feeder_ms = (statistics.median(each) for each in zip(*taken, strict=True))
        print(f"| {count} | {rate:.0f} | {engine_ms:.4f} | {feeder_ms:.4f} |")


if __name__ == "__main__":
    typer.run(command)
