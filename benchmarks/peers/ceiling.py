"""The same work without HTTP, in the two forms that a server can take; the better one of a round is the ceiling.

    python -m benchmarks.peers.ceiling MODEL.onnx FOLDER --form one-engine --seconds 3

`one-engine`: one session on all cores; threads decode the next batch meanwhile. `process-per-core`: each process
decodes a batch and then runs it with one thread. Batches are as large as the service's. Prints images per second.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.load import ceiling
from benchmarks.peers.photos import photos_in
from benchmarks.peers.servers.classifier import batch_limit, stack
from model.headers import ImageLimits
from model.preprocess import PatchSequence, preprocess
from service.engine import Engine
from service.settings import EngineSettings, Settings

Read = Callable[[bytes], PatchSequence]


def opened(artifact: Path, threads: int = 0) -> tuple[Engine, Read]:
    """The service's own engine, warm, and the preprocessing that the artifact asks for."""
    engine = Engine(EngineSettings(model=artifact, engine_threads=threads))
    engine.warm_up()
    spec, limits = engine.model.manifest.preprocessing, ImageLimits()
    return engine, lambda data: preprocess(data, spec, limits)


def best_classes(artifact: Path, files: Sequence[bytes]) -> tuple[list[int], int]:
    """Index of the best class of each file, run alone, and the most patches of a file: what servers are held to."""
    engine, read = opened(artifact)
    images = [read(data) for data in files]
    return [int(engine.run(*stack([image]))[0].argmax()) for image in images], _longest(images)


def one_engine(artifact: Path, files: Sequence[bytes], seconds: float) -> float:
    """Images per second of one session, the next batch being decoded while one runs."""
    return ceiling(opened(artifact)[0], list(files), seconds, Settings())


def process_per_core(artifact: Path, files: Sequence[bytes], seconds: float) -> float:
    """Images per second of as many processes as cores, with one thread each."""
    context, count = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    ready = context.Barrier(count)
    with context.Pool(count, _share, (ready,)) as pool:
        return sum(pool.starmap(_one_thread, [(artifact, files, seconds)] * count, chunksize=1))


_FORMS = {"one-engine": one_engine, "process-per-core": process_per_core}
FORMS = tuple(_FORMS)
_ready: Barrier  # of this process of the pool; a barrier can only be inherited


def _share(ready: Barrier) -> None:
    global _ready  # noqa: PLW0603
    _ready = ready


def _one_thread(artifact: Path, files: Sequence[bytes], seconds: float) -> float:
    engine, read = opened(artifact, threads=1)
    batch = batch_limit(_longest([read(data) for data in files]))
    source, done = cycle(files), 0
    _ready.wait()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        engine.run(*stack([read(data) for data in islice(source, batch)]))
        done += batch
    return done / (time.perf_counter() - started)


def _longest(images: Sequence[PatchSequence]) -> int:
    return max(len(image.patches) for image in images)


def command(
    model: Annotated[Path, typer.Argument(help="Artifact.")],
    folder: Annotated[Path, typer.Argument(help="With the JPEGs, named after their workload.")],
    form: Annotated[str, typer.Option(help=" or ".join(FORMS))] = FORMS[0],
    seconds: Annotated[float, typer.Option(min=0.1, help="Of the measurement.")] = 3.0,
) -> None:
    """Images per second without HTTP."""
    measure: Any = _FORMS[form]
    print(measure(model, photos_in(folder), seconds))


if __name__ == "__main__":
    typer.run(command)
