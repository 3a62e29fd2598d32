"""Photographs of twenty shapes in one stream, beside a stream of one shape with the same patches and pixels.

    python -m benchmarks.mixed_sizes
    python -m benchmarks.mixed_sizes --option=--batch-overhead-patches=64

A model that keeps the aspect ratio (ViT-Ti/16, random weights, at most 196 patches: the cost of 224x224) gets real
photographs from 64x64 to 640x480 pixels, 16 to 196 patches. Compared, interleaved, 32 connections each:

- `mixed`: the twenty shapes in random order;
- `runs`: the same images, 32 of one shape after the other: what batches of one shape cost at these lengths;
- `uniform`: images of one shape with as many pixels to decode and as many patches as the mean of `mixed`;
- `buckets`: `mixed`, only images of equal length share a batch (`--batch-overhead-patches 0`, the default with lanes);
- `padding`: `mixed`, padding of up to 32 patches saves a run (the default with one lane);
- `arrival`: `mixed`, whatever waits shares a batch, padded as much as it takes (no limit of padding);
- `padded`: every image of `mixed` padded to 224x224 pixels by the client, as models with one input size need it.

Patches of `padded` count as in `mixed`: what was added is no use. Padding and images a batch come from `/metrics`.
Needs scikit-image and scikit-learn.
"""

import asyncio
import random
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

import typer
from PIL import Image

from benchmarks.images import encode, fitted, photographs
from benchmarks.load import Measured, closed_loop, request_of
from benchmarks.rounds import ratio
from benchmarks.served import Served, artifact, serve
from model.manifest import Preprocessing
from model.preprocess import choose_grid

MAX_PATCHES = 196
SPEC = Preprocessing(16, (14, 14), MAX_PATCHES, "aspect")
SHAPES = (
    (64, 64), (96, 96), (128, 96), (96, 128), (160, 120), (120, 160), (160, 160), (192, 128), (128, 192), (192, 144),
    (224, 160), (160, 224), (256, 144), (256, 192), (192, 256), (224, 224), (320, 180), (400, 300), (640, 427),
    (480, 640),
)  # fmt: skip
_ANY = 10**9  # patches of padding: no limit
_QUERY = "timeout_ms=30000"  # the default deadline refuses what a hundred connections send at once


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests, and the patches that each is worth."""

    requests: list[bytes]
    patches: list[int]


@dataclass(frozen=True, slots=True)
class Run:
    """One stream through one service."""

    patches_per_s: float
    padding: float  # mean over the batches
    images: float  # mean of a batch
    p50_ms: float
    p99_ms: float


def lengths(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Patches of an image of each (width, height)."""
    grids = [choose_grid(width, height, SPEC) for width, height in shapes]
    return [rows * columns for rows, columns in grids]


def one_shape(shapes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], int]:
    """(width, height) with the mean pixels of these, as near a square as it goes, and their mean patches."""
    patches = round(statistics.mean(lengths(shapes)))
    side = round(statistics.mean(width * height for width, height in shapes) ** 0.5)
    return (side, side), patches


def mixed(photos: list[Image.Image], *, padded: bool = False, run: int = 1) -> Stream:
    """Every shape of several photographs, `run` times each, in an order that is random and always the same."""
    shapes = [(shape, photo) for shape in SHAPES for photo in photos]
    random.Random(0).shuffle(shapes)  # noqa: S311 - not a secret
    if run > 1:
        first = photos[0]
        shapes = [each for each in shapes if each[1] is first for _ in range(run)]
    images = [fitted(photo, *shape) for shape, photo in shapes]
    files = [encode(_pad(image) if padded else image) for image in images]
    return Stream(
        [request_of(data, "localhost", f"/classify?{_QUERY}") for data in files],
        lengths([shape for shape, _ in shapes]),
    )


def _pad(image: Image.Image) -> Image.Image:
    image.thumbnail((224, 224))
    canvas = Image.new("RGB", (224, 224))
    canvas.paste(image)
    return canvas


def uniform(photos: list[Image.Image]) -> Stream:
    """Images of one shape; a budget makes the patches equal to the mean of the mixed stream, as near as grids allow."""
    shape, budget = one_shape(SHAPES)
    rows, columns = choose_grid(*shape, SPEC, budget)
    path = f"/classify?{_QUERY}&max_patches={budget}"
    requests = [request_of(encode(fitted(photo, *shape)), "localhost", path) for photo in photos]
    return Stream(requests, [rows * columns] * len(photos))


def measure(served: Served, stream: Stream, connections: int, seconds: float) -> Run:
    """Run one stream for some seconds."""
    before = served.counters()
    measured = asyncio.run(closed_loop(served.host, served.port, stream.requests, connections, seconds))
    after = served.counters()
    _check(measured)
    batches, images, padding = (
        after[f"patchserve_{name}"] - before[f"patchserve_{name}"]
        for name in ("batch_images_count", "batch_images_sum", "batch_padding_ratio_sum")
    )
    patches = sum(stream.patches[index] for index in measured.answered)
    return Run(
        patches / seconds,
        padding / batches,
        images / batches,
        measured.percentile_ms(0.5),
        measured.percentile_ms(0.99),
    )


def _check(measured: Measured) -> None:
    if set(measured.statuses) != {200}:
        raise SystemExit(f"not every request was answered: {measured.statuses}")


def command(
    connections: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 32,
    seconds: Annotated[float, typer.Option(min=1, help="Of each measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved repetitions.")] = 5,
    variant: Annotated[str, typer.Option(help="The model.")] = "Ti/16",
    option: Annotated[list[str] | None, typer.Option(help="A flag for the service of mixed and uniform.")] = None,
    only: Annotated[str, typer.Option(help="Streams to run, separated by commas.")] = "",
) -> None:
    """Patches per second of each stream, as a share of the uniform one."""
    model = artifact(variant, "--resize", "aspect", "--max-patches", str(MAX_PATCHES))
    photos = list(photographs().values())[:3]
    plain, same, padded = mixed(photos), uniform(photos), mixed(photos, padded=True)
    mean = statistics.mean(plain.patches)
    print(f"{variant}, {connections} connections, {len(SHAPES)} shapes of {min(plain.patches)} to {max(plain.patches)}")
    print(f"patches, mean {mean:.1f}; the uniform stream has {same.patches[0]}")
    with ExitStack() as running:
        default, buckets, padding, arrival = (
            running.enter_context(serve(model, options))
            for options in (option or [], [_overhead(0)], [_overhead(32)], [_overhead(_ANY)])
        )
        streams = {
            "mixed": (default, plain),
            "uniform": (default, same),
            "runs": (default, mixed(photos, run=32)),
            "buckets": (buckets, plain),
            "padding": (padding, plain),
            "arrival": (arrival, plain),
            "padded": (default, padded),
        }
        chosen = {name: each for name, each in streams.items() if not only or name in {*only.split(","), "uniform"}}
        runs: dict[str, list[Run]] = {name: [] for name in chosen}
        for number in range(rounds + 1):
            for name, (served, stream) in chosen.items():
                run = measure(served, stream, connections, seconds if number else 1.0)
                runs[name] += [run] if number else []  # the first round is a warm-up
    _report(runs)


def _overhead(patches: int) -> str:
    return f"--batch-overhead-patches={patches}"


def _report(runs: dict[str, list[Run]]) -> None:
    print("| stream | patches/s | of uniform | rounds | padding | images a batch | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|---|")
    for name, each in runs.items():
        speeds = [run.patches_per_s for run in each]
        others = [run.patches_per_s for run in runs["uniform"]]
        shares = [one / other for one, other in zip(speeds, others, strict=True)]
        cells = [
            f"{statistics.median(speeds):.0f}",
            f"**{ratio(speeds, others):.3f}**",
            f"{min(shares):.2f} to {max(shares):.2f}",
            f"{statistics.median(run.padding for run in each):.1%}",
            f"{statistics.median(run.images for run in each):.1f}",
            f"{statistics.median(run.p50_ms for run in each):.0f}",
            f"{statistics.median(run.p99_ms for run in each):.0f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(command)
