"""Decoding in threads, in killable processes of our own, and in those of pebble: what the isolation costs.

    python -m benchmarks.decode_isolation
    python -m benchmarks.decode_isolation --way thread --way process --rounds 9

Files become patches of a ViT/16 at 224x224, as in the service: JPEGs of 224x224 (13 kB), 1600x1200 and 12 megapixels.

- thread: a pool of decode threads, which is what `--decode-isolation thread` does
- process: `--decode-isolation process`, a worker for each of the same threads: `service.decoding.processes`
- pebble: `pebble.ProcessPool`, which kills a worker for one task's timeout too; files and patches are pickled through
  its pipes. Not among our dependencies: `pip install pebble`

The ways take turns, round after round, and ratios to the first are taken within a round, so that a slow minute of the
machine falls on all. The first figures are with twice as many images as threads in flight, `alone` is with one; CPU
time is that of this process and all below it. `--lost` measures how soon a killed worker is replaced, and the memory
of one.
Linux only. Recorded runs are in docs/performance/decode-isolation.md.
"""

import importlib
import itertools
import multiprocessing
import os
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.images import make_jpegs
from benchmarks.rounds import ratio
from benchmarks.served import family, process_cpu_s
from model.headers import ImageHeader, ImageLimits, read_header
from model.manifest import Preprocessing
from model.preprocess import choose_grid
from service.decoding.processes import ProcessDecoder
from service.decoding.steps import decode_and_cut
from service.settings import ImageSettings

_SPEC = Preprocessing(16, (14, 14), 196, "crop", 256)
_SIZES = {"224x224": (224, 224), "1600x1200": (1600, 1200), "4000x3000": (4000, 3000)}
_FILE_BYTES = 10_485_760


@dataclass(frozen=True, slots=True)
class Photo:
    """A file and what its header says."""

    data: bytes
    header: ImageHeader
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Figures:
    """One turn of one way."""

    images_per_s: float
    cpu_ms: float  # an image, user and kernel
    alone_ms: float  # median


Submit = Callable[[Photo], "Future[object]"]


def read_photos(width: int, height: int) -> list[Photo]:
    """Eight files of a size."""
    photos = []
    for data in make_jpegs(width, height):
        header = read_header(data, ImageLimits())
        photos.append(Photo(data, header, choose_grid(*header.upright_size, _SPEC)))
    return photos


def place() -> NDArray[np.uint8]:
    """New memory for the patches of one image, as in a service of one process."""
    return np.empty((_SPEC.max_patches, _SPEC.patch_dim), np.uint8)


# --- the ways ---------------------------------------------------------------------------------------------------------
@contextmanager
def in_threads(threads: int) -> Iterator[Submit]:
    """In this process."""

    def decode(photo: Photo) -> object:
        return decode_and_cut(photo.data, photo.header, _SPEC, photo.grid, place, exact=False)

    with ThreadPoolExecutor(threads) as pool:
        yield lambda photo: pool.submit(decode, photo)


class Watch:
    """Counts workers as they come."""

    def __init__(self) -> None:
        self.ready = threading.Semaphore(0)

    def worker_ready(self) -> None:
        """One more."""
        self.ready.release()

    def worker_lost(self, loss: str, status: int) -> None:
        """Expected, where they are killed."""

    def worker_not_started(self, reason: str) -> None:
        """Ends the benchmark."""
        raise SystemExit(reason)


@contextmanager
def in_processes(threads: int) -> Iterator[Submit]:
    """In our own workers, each behind a thread."""
    decoder = ProcessDecoder(ImageSettings(), _SPEC, _FILE_BYTES, threads, Watch())

    def decode(photo: Photo) -> object:
        return decoder.decode(photo.data, photo.header, photo.grid, place, time.monotonic() + 60)

    decoder.open()
    with ThreadPoolExecutor(threads) as pool:
        yield lambda photo: pool.submit(decode, photo)
    decoder.close()


def decode_for_pebble(photo: Photo) -> object:
    """Runs in a worker of pebble."""
    return decode_and_cut(photo.data, photo.header, _SPEC, photo.grid, place, exact=False)


@contextmanager
def in_pebble(threads: int) -> Iterator[Submit]:
    """In pebble's workers; its own threads feed them."""
    pebble = importlib.import_module("pebble")
    pool = pebble.ProcessPool(threads, context=multiprocessing.get_context("spawn"))
    yield lambda photo: pool.schedule(decode_for_pebble, args=(photo,), timeout=60)
    pool.stop()
    pool.join()


_WAYS = {"thread": in_threads, "process": in_processes, "pebble": in_pebble}


# --- measuring --------------------------------------------------------------------------------------------------------
def measure(submit: Submit, photos: list[Photo], in_flight: int, seconds: float) -> Figures:
    """One turn: first many in flight, then one."""
    waiting: deque[Future[object]] = deque()
    source = itertools.cycle(photos)
    done, started, cpu_s = 0, time.perf_counter(), _cpu_s()
    while time.perf_counter() - started < seconds or not done:
        while len(waiting) < in_flight:
            waiting.append(submit(next(source)))
        waiting.popleft().result()
        done += 1
    done += len(waiting)
    while waiting:
        waiting.popleft().result()
    took, cpu_s = time.perf_counter() - started, _cpu_s() - cpu_s
    alone = [_time_one(submit, photo) for photo in itertools.islice(itertools.cycle(photos), max(8, done // 8))]
    return Figures(done / took, cpu_s / done * 1e3, statistics.median(alone) * 1e3)


def _time_one(submit: Submit, photo: Photo) -> float:
    started = time.perf_counter()
    submit(photo).result()
    return time.perf_counter() - started


def _cpu_s() -> float:
    return sum(process_cpu_s(pid) for pid in family(os.getpid()))


def measure_loss(times: int) -> None:
    """Kill a worker while it is idle: the time until the next one is ready, and its memory."""
    watch = Watch()
    decoder = ProcessDecoder(ImageSettings(), _SPEC, _FILE_BYTES, 1, watch)
    decoder.open()
    watch.ready.acquire()
    photo, seconds = read_photos(224, 224)[0], []
    for _ in range(times):
        os.kill(_worker(), signal.SIGKILL)
        started = time.perf_counter()
        decoder.decode(photo.data, photo.header, photo.grid, place, time.monotonic() + 60)
        seconds.append(time.perf_counter() - started)
    text = Path(f"/proc/{_worker()}/smaps_rollup").read_text()
    kilobytes = {name: int(text.split(f"{name}:")[1].split()[0]) for name in ("Rss", "Pss", "Private_Dirty")}
    decoder.close()
    print(f"killed, replaced and the image decoded: {', '.join(f'{each:.2f}' for each in seconds)} s")
    print(f"memory of a worker: {', '.join(f'{name} {size / 1e3:.1f} MB' for name, size in kilobytes.items())}")


def _worker() -> int:
    """The only one; pebble leaves a process of its own behind."""
    return next(pid for pid in family(os.getpid()) if b"decoding" in Path(f"/proc/{pid}/cmdline").read_bytes())


def command(
    way: Annotated[list[str] | None, typer.Option(help="Ways to compare; default all.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Sizes; default all.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Images decoded at a time.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every way.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of the throughput part of a turn.")] = 1.0,
    lost: Annotated[bool, typer.Option(help="Also kill workers.")] = False,
) -> None:
    """Throughput, CPU time and latency, medians over the rounds, and median ratios to threads."""
    names = way or list(_WAYS)
    print(
        "| file | way | images/s | of threads | CPU-ms an image | more than threads | alone, ms | more than threads |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for label in size or _SIZES:
        photos = read_photos(*_SIZES[label])
        turns: dict[str, list[Figures]] = {name: [] for name in names}
        for number in range(rounds + 1):
            for name in names:
                with _WAYS[name](threads) as submit:
                    for _ in range(4):  # every worker has begun, and has its memory
                        for future in [submit(photo) for photo in photos]:
                            future.result()
                    figures = measure(submit, photos, 2 * threads, seconds)
                if number:
                    turns[name].append(figures)
        for name in names:
            print(_row(label, name, turns[name], turns[names[0]]), flush=True)
    if lost:
        measure_loss(5)


def _row(label: str, name: str, turns: list[Figures], base: list[Figures]) -> str:
    middle = [statistics.median(values) for values in zip(*map(_values, turns), strict=True)]
    share = ratio([turn.images_per_s for turn in turns], [turn.images_per_s for turn in base])
    more_cpu, more_ms = (
        statistics.median(getattr(one, field) - getattr(other, field) for one, other in zip(turns, base, strict=True))
        for field in ("cpu_ms", "alone_ms")
    )
    return (
        f"| {label} | {name} | {middle[0]:.0f} | {share:.2f} | {middle[1]:.2f} | {more_cpu:+.2f} "
        f"| {middle[2]:.2f} | {more_ms:+.2f} |"
    )


def _values(figures: Figures) -> tuple[float, float, float]:
    return figures.images_per_s, figures.cpu_ms, figures.alone_ms


if __name__ == "__main__":
    typer.run(command)
