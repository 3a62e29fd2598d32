"""Time and memory of the engine against patches, batch and classes, with the exponent of each decade.

    python -m benchmarks.growth time --plot docs/performance/growth-time.svg
    python -m benchmarks.growth memory --plot docs/performance/growth-memory.svg

ViT-Ti/16 with random weights in `service.engine.Engine`, one run at a time. Three series: one image of 16 to 4,096
patches (square grids); 1 to 64 images of 196 patches; one image of 196 patches with heads of 10 to 21,843 classes.
Time: medians of interleaved repetitions, all points of a series in turn in one process. Memory: each point in a process
of its own, the peak of its resident set during three runs, in all and beyond what it held before them (Linux: the peak
is reset through /proc/self/clear_refs): the first includes interpreter and weights, the second is the work. The
exponent p is that of y = c * x^p, fitted in each tenfold stretch.
"""

import functools
import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.fits import exponents
from benchmarks.rounds import interleave
from benchmarks.served import artifact
from service.allocator import give_back_memory
from service.engine import Engine
from service.settings import EngineSettings

SIDES = (4, 6, 8, 11, 16, 23, 32, 45, 64)  # of the grid: 16 to 4,096 patches
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CLASSES = (10, 100, 1000, 4000, 10_000, 21_843)
app = typer.Typer(pretty_exceptions_enable=False, help=__doc__)
Point = tuple[int, int, int]  # images, side of the grid, classes
Series = dict[str, list[tuple[int, Point]]]


def series() -> Series:
    """The points of each series, beside what grows."""
    return {
        "patches": [(side * side, (1, side, 1000)) for side in SIDES],
        "batch": [(images, (images, 14, 1000)) for images in BATCHES],
        "classes": [(classes, (1, 14, classes)) for classes in CLASSES],
    }


@functools.cache
def model(classes: int) -> Path:
    """ViT-Ti/16 with a head of this size."""
    return artifact("Ti/16", *([] if classes == 1000 else ["--classes", str(classes)]))


def work(engine: Engine, images: int, side: int) -> Callable[[], object]:
    """One run of the engine."""
    spec = engine.model.manifest.preprocessing
    patches = np.random.default_rng(0).integers(0, 256, (images, side * side, spec.patch_dim), np.uint8)
    grid = np.full((images, 2), side, np.int64)
    return lambda: engine.run(patches, grid)


@app.command("time")
def time_command(
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved repetitions.")] = 9,
    only: Annotated[str, typer.Option(help="One series.")] = "",
    plot: Annotated[Path | None, typer.Option(help="SVG to write.")] = None,
) -> None:
    """Seconds of a run."""
    engines = {classes: Engine(EngineSettings(model=model(classes))) for classes in CLASSES}
    found = {}
    for name, points in series().items():
        if only in {"", name}:
            works = {str(x): work(engines[classes], images, side) for x, (images, side, classes) in points}
            seconds = interleave(works, rounds)
            found[name] = [(x, 1000 * statistics.median(seconds[str(x)])) for x, _ in points]
    _report(found, "ms", plot)


@app.command("memory")
def memory_command(plot: Annotated[Path | None, typer.Option(help="SVG to write.")] = None) -> None:
    """Peak of the resident set."""
    peaks = {name: [(x, *_peak_mb(point)) for x, point in points] for name, points in series().items()}
    print("In all:")
    _report({name: [(x, total) for x, total, _ in points] for name, points in peaks.items()}, "MB", None)
    print("\nOf the runs:")
    _report({name: [(x, own) for x, _, own in points] for name, points in peaks.items()}, "MB", plot)


def _peak_mb(point: Point) -> tuple[float, float]:
    images, side, classes = point
    command = [sys.executable, "-m", "benchmarks.growth", "point", str(images), str(side), str(model(classes))]
    total, own = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return total, own


@app.command(hidden=True)
def point(images: int, side: int, path: Path) -> None:
    """Peak of this process's resident set in three runs, and how much of it came with them, megabytes."""
    run = work(Engine(EngineSettings(model=path)), images, side)
    give_back_memory()  # what loading has left over would be used by the runs, and hide them
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
    before = _status_mb("VmRSS")
    for _ in range(3):
        run()
    peak = _status_mb("VmHWM")
    print(json.dumps([peak, peak - before]))


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def _report(found: dict[str, list[tuple[int, float]]], unit: str, plot: Path | None) -> None:
    for name, points in found.items():
        print(f"\n| {name} | {' | '.join(str(x) for x, _ in points)} |")
        print(f"|---|{'---|' * len(points)}")
        print(f"| {unit} | {' | '.join(f'{y:.1f}' for _, y in points)} |")
        print("exponents: " + ", ".join(f"{low:g} to {high:g}: {p:.2f}" for low, high, p in _exponents(points)))
    if plot is not None:
        _draw(found, unit, plot)


def _exponents(points: list[tuple[int, float]]) -> list[tuple[float, float, float]]:
    return exponents([x for x, _ in points], [y for _, y in points])


def _draw(found: dict[str, list[tuple[int, float]]], unit: str, path: Path) -> None:
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, len(found), figsize=(3.6 * len(found), 3.4), squeeze=False)
    for axis, (name, points) in zip(axes[0], found.items(), strict=True):
        _draw_series(axis, points)
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel=unit)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _draw_series(axis: Any, points: list[tuple[int, float]]) -> None:
    values = dict(points)
    axis.plot(*zip(*points, strict=True), "o-", markersize=4)
    low, high = min(values.values()), max(values.values())
    room = max(1.3, (10 / (high / low)) ** 0.5)  # at least a decade, or noise looks like growth
    axis.set_ylim(low / room, high * room)
    for low, high, p in _exponents(points):
        middle = (low * high) ** 0.5
        height = (values[int(low)] * values[int(high)]) ** 0.5
        axis.annotate(f"{p:.2f}", (middle, height), xytext=(4, -14), textcoords="offset points")


if __name__ == "__main__":
    app()
