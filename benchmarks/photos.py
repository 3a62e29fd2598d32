"""Large photographs to patches on one core, beside the evaluation transforms of timm and torchvision.

    python -m benchmarks.photos times     # speed, and where the time goes
    python -m benchmarks.photos effect    # what the reduced scale does to pixels, logits and top-1
    python -m benchmarks.photos margin    # error against how much larger the decoded image stays

A JPEG of 12 megapixels (4000x3000) is an enlarged photograph of scikit-image or scikit-learn with grain of three
scales, 4:2:0, at qualities that give the file sizes of cameras; also 48 megapixels, and progressive. The others get the
same bytes and do what their documentation shows: `Image.open(...).convert("RGB")` and the transform, or torchvision's
`decode_jpeg` and its transform on tensors. The process keeps to one core and torch to one thread. Ours follows the rule
of whom it is compared with (timm: 256 bicubic, torchvision: 256 bilinear, both 224 in the centre). Needs timm,
torchvision, scikit-image, scikit-learn and matplotlib.
"""

import importlib
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from benchmarks.images import encode, enlarged, photographs
from benchmarks.rounds import interleave, ratio
from benchmarks.served import artifact
from model.checkpoints.pixels import IMAGENET, from_timm
from model.headers import ImageLimits, read_header
from model.manifest import Preprocessing
from model.preprocess import PatchSequence, choose_grid, cut, decode, preprocess, resize
from service.engine import Engine
from service.settings import EngineSettings

_PATCHES = Preprocessing(16, (14, 14), 196, "squash")
_TIMM = {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875}
TIMM = from_timm(_TIMM).fit(_PATCHES)
TORCHVISION = IMAGENET.fit(_PATCHES)
LIMITS = ImageLimits()
SCALES = (1, 2, 4, 8)
app = typer.Typer(pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def one_core() -> None:
    """Keep this process to one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


@app.command()
def times(rounds: Annotated[int, typer.Option(min=1, help="Interleaved repetitions.")] = 9) -> None:
    """Milliseconds of each, and how many times longer the others take."""
    print("| file | MB | ours | exact | timm | ratio | torchvision | ratio | torchvision, tensors | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, data in _files():
        seconds = interleave(_contestants(data), rounds)
        cells = [f"{1000 * statistics.median(seconds[key]):.1f}" for key in ("ours", "exact")]
        for key, ours in (("timm", "ours"), ("torchvision", "ours, bilinear"), ("tensors", "ours, bilinear")):
            cells += [f"{1000 * statistics.median(seconds[key]):.1f}", f"**{ratio(seconds[key], seconds[ours]):.2f}**"]
        print(f"| {name} | {len(data) / 1e6:.1f} | {' | '.join(cells)} |", flush=True)
        print(f"|   where: {_where(data, rounds)} |", flush=True)


def _files() -> Iterator[tuple[str, bytes]]:
    photos = photographs()
    for name in ("flower", "china"):
        image = enlarged(photos[name], 4000, 3000)
        for quality in (90, 95):
            yield f"{name}, 12 megapixels, quality {quality}", encode(image, quality=quality)
    yield "china, 12 megapixels, progressive", encode(image, quality=95, progressive=True)
    yield "china, 48 megapixels", encode(enlarged(photos["china"], 8000, 6000), quality=90)


def _contestants(data: bytes) -> dict[str, Callable[[], object]]:
    transform = importlib.import_module("timm.data").create_transform(**_TIMM)
    vision = importlib.import_module("torchvision")
    weights = vision.models.ViT_B_16_Weights.IMAGENET1K_V1.transforms()
    content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return {
        "ours": lambda: preprocess(data, TIMM, LIMITS),
        "timm": lambda: transform(Image.open(BytesIO(data)).convert("RGB")),
        "ours, bilinear": lambda: preprocess(data, TORCHVISION, LIMITS),
        "torchvision": lambda: weights(Image.open(BytesIO(data)).convert("RGB")),
        "tensors": lambda: weights(vision.io.decode_jpeg(content)),
        "exact": lambda: preprocess(data, TIMM, LIMITS, exact=True),
    }


def _where(data: bytes, rounds: int) -> str:
    """Milliseconds of decoding at each scale, and of what follows."""
    header = read_header(data, LIMITS)
    works: dict[str, Callable[[], object]] = {f"decode 1/{scale}": partial(at_scale, data, scale) for scale in SCALES}
    quarter = at_scale(data, 4)
    works["resize from 1/4"] = lambda: resize(quarter, TIMM, (14, 14))
    works["resize from 1/4 and cut"] = lambda: cut(quarter, header, TIMM, (14, 14))
    works["read the header"] = lambda: read_header(data, LIMITS)
    seconds = interleave(works, rounds)
    return ", ".join(f"{name} {1000 * statistics.median(each):.2f}" for name, each in seconds.items())


def at_scale(data: bytes, scale: int) -> Image.Image:
    """A JPEG decoded at 1/scale."""
    header = read_header(data, LIMITS)
    least = header.width // scale, header.height // scale
    return decode(data, header, at_least=least, background=(0, 0, 0))


@app.command()
def effect() -> None:
    """Default against exact decoding for six photographs of 12 megapixels, two models."""
    engines = [Engine(EngineSettings(model=model)) for model in (artifact("Ti/16"), None)]
    print("| model | photograph | decoded at | pixels, mean | pixels, largest | logits | margin | same top-1 |")
    print("|---|---|---|---|---|---|---|---|")
    for name, image in photographs().items():
        data = encode(enlarged(image, 4000, 3000), quality=92)
        for engine in engines:
            print(f"| {engine.model.manifest.name} | {name} | {_effect(engine, data)} |", flush=True)


def _effect(engine: Engine, data: bytes) -> str:
    spec = engine.model.manifest.preprocessing
    exact, reduced = (preprocess(data, spec, LIMITS, exact=each) for each in (True, False))
    difference = np.abs(exact.patches.astype(int) - reduced.patches)
    expected, logits = _logits(engine, exact), _logits(engine, reduced)
    largest = np.abs(expected).max()
    first, second = np.sort(expected)[:-3:-1]
    return " | ".join(
        [
            f"1/{_scale_of(data, spec)}",
            f"{difference.mean():.3f}",
            f"{difference.max()}",
            f"{np.abs(logits - expected).max() / largest:.1e}",
            f"{(first - second) / largest:.1e}",
            "yes" if logits.argmax() == expected.argmax() else "**no**",
        ]
    )


def _scale_of(data: bytes, spec: Preprocessing) -> int:
    """What `preprocess` chooses, found by its result."""
    chosen = preprocess(data, spec, LIMITS).patches
    header = read_header(data, LIMITS)
    grid = choose_grid(*header.upright_size, spec)
    return next(s for s in SCALES if np.array_equal(cut(at_scale(data, s), header, spec, grid).patches, chosen))


def _logits(engine: Engine, sequence: PatchSequence) -> Any:
    return engine.run(sequence.patches[None], np.array([sequence.grid], np.int64))[0]


@app.command()
def margin(plot: Annotated[Path | None, typer.Option(help="SVG to write.")] = None) -> None:
    """Mean error of pixels against the pixels left: decoded short side over resized short side."""
    engine = Engine(EngineSettings(model=artifact("Ti/16")))
    points = []
    for name, image in photographs().items():
        for height in (900, 1100, 1400, 1800, 2300, 3000):
            data = encode(enlarged(image, height * 4 // 3, height), quality=92)
            points += [(name, height, *each) for each in _margin_points(engine, data)]
            print(".", end="", flush=True)
    print("\n| left over | photographs | pixels, mean | worst | logits, worst | decode, ns a source pixel |")
    print("|---|---|---|---|---|---|")
    edges = (0.0, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
    for low, high in pairwise(edges):
        _print_band(low, high, [point for point in points if low <= point[3] < high])
    if plot is not None:
        _draw(points, plot)


def _margin_points(engine: Engine, data: bytes) -> Iterator[tuple[int, float, float, float, float]]:
    """(scale, pixels left, mean difference of pixels, largest relative difference of logits, ns) of each scale."""
    header, grid = read_header(data, LIMITS), (14, 14)
    # Both resized by Pillow: the scale is all that differs.
    exact = cut(at_scale(data, 1), header, TIMM, grid, exact=True)
    expected = _logits(engine, exact)
    for scale in SCALES[1:]:
        image = at_scale(data, scale)
        seconds = statistics.median(interleave({"": partial(at_scale, data, scale)}, 3)[""])
        reduced = cut(image, header, TIMM, grid, exact=True)
        pixels = float(np.abs(exact.patches.astype(int) - reduced.patches).mean())
        logits = float(np.abs(_logits(engine, reduced) - expected).max() / np.abs(expected).max())
        yield scale, header.height / scale / 256, pixels, logits, 1e9 * seconds / (header.width * header.height)


def _print_band(low: float, high: float, points: list[Any]) -> None:
    if points:
        pixels, logits, nanoseconds = (np.array([point[place] for point in points]) for place in (4, 5, 6))
        cells = f"{pixels.mean():.3f} | {pixels.max():.3f} | {logits.max():.1e} | {nanoseconds.mean():.2f}"
        print(f"| {low:g} to {high:g} | {len(points)} | {cells} |")


def _draw(points: list[Any], path: Path) -> None:
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for scale in SCALES[1:]:
        chosen = [point for point in points if point[2] == scale]
        axes.plot([p[3] for p in chosen], [p[4] for p in chosen], "o", markersize=4, label=f"decoded at 1/{scale}")
    axes.axvline(2, color="black", linewidth=0.8, label="margin of the service")
    axes.set(xscale="log", yscale="log", xlabel="decoded size / resized size", ylabel="pixels, mean difference of 255")
    axes.legend()
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    app()
