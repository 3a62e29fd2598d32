"""How large a batch of one lane should be: images a second of all lanes together against images of a batch.

    python -m benchmarks.lane_batches                    # ViT-Ti/16, S/16, B/16, 14x14 patches
    python -m benchmarks.lane_batches --model Ti/16 --side 7

Each lane is a thread that runs batches of the same size one after the other, as under a load that never ends. The sizes
take turns within each round; the median of the rounds is printed, as a ratio to one image at a time.
"""

import statistics
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.served import artifact
from service.artifacts import bundled_model
from service.engine import Engine
from service.settings import EngineSettings

SIZES = (1, 2, 4, 8, 10, 20)


def rate(engine: Engine, images: int, side: int, seconds: float) -> float:
    """Images a second of all lanes, each of which runs batches of `images` grids of `side` x `side` patches."""
    dim = engine.model.manifest.preprocessing.patch_dim
    patches = np.random.default_rng(0).integers(0, 256, (images, side * side, dim), np.uint8)
    grid = np.full((images, 2), side, np.int64)
    done = [0] * engine.lanes.number
    began = time.perf_counter()

    def run(lane: int) -> None:
        while time.perf_counter() - began < seconds:
            engine.run(patches, grid, alone=False)
            done[lane] += images

    lanes = [threading.Thread(target=run, args=(lane,)) for lane in range(len(done))]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    return sum(done) / (time.perf_counter() - began)


def command(
    model: Annotated[list[str] | None, typer.Option(help="A variant such as Ti/16, or `bundled`.")] = None,
    side: Annotated[int, typer.Option(min=1, help="Rows and columns of every image, patches.")] = 14,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each size in each round.")] = 2.0,
) -> None:
    """A row for each model, a column for each size of batch."""
    print(f"| model, {side * side} patches | {' | '.join(map(str, SIZES))} |\n|---|{'---|' * len(SIZES)}")
    for variant in model or ["Ti/16", "S/16", "B/16"]:
        path: Path = bundled_model() if variant == "bundled" else artifact(variant)
        engine = Engine(EngineSettings(model=path))
        engine.warm_up()
        rates = [[rate(engine, size, side, seconds) for size in SIZES] for _ in range(rounds)]
        medians = [statistics.median(column) for column in zip(*rates, strict=True)]
        cells = [f"{each:.1f} ({each / medians[0]:.2f})" for each in medians]
        print(f"| {variant}, {engine.lanes.number} lanes | {' | '.join(cells)} |", flush=True)
        engine.close()


if __name__ == "__main__":
    typer.run(command)
