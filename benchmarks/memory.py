"""Memory of the service over twenty minutes of images of random shapes.

    python -m benchmarks.memory --minutes 20 --plot docs/performance/memory.svg

Requests with one to eight files of random size (16 to 640 pixels a side, JPEG, PNG or WebP) and a random budget from
1 to `max_patches`, over six connections with random pauses: batches of random size and length, through HTTP, decoders,
scheduler and engine. The model keeps the aspect ratio, so nearly every image has another number of patches. Every five
seconds the memory that all processes of the service filled is read (anonymous and shared memory; what they share counts
once). After a warm-up of a quarter of the time a line is fitted; its slope is what the service would gain in an hour.
"""

import asyncio
import importlib
import itertools
import os
import random
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.fits import slope
from benchmarks.images import photographs
from benchmarks.load import exchange
from benchmarks.served import Served, artifact, serve

_BOUNDARY = "image-boundary"
_INTERVAL_S = 5.0
_CONNECTIONS = 6


def random_image(draw: random.Random, photos: list[Image.Image]) -> bytes:
    """A photograph in a random size and format; small sizes as likely as large ones."""
    width, height = (round(16 * (640 / 16) ** draw.random()) for _ in "wh")
    buffer = BytesIO()
    draw.choice(photos).resize((width, height)).save(buffer, draw.choice(["JPEG", "JPEG", "PNG", "WEBP"]))
    return buffer.getvalue()


def random_request(draw: random.Random, images: list[bytes], max_patches: int) -> bytes:
    """A multipart request of one to eight images with a random budget."""
    parts = b"".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode() + image + b"\r\n"
        for image in draw.choices(images, k=draw.randint(1, 8))
    )
    body = parts + f"--{_BOUNDARY}--\r\n".encode()
    head = (
        f"POST /classify?max_patches={draw.randint(1, max_patches)}&timeout_ms=30000 HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def load(served: Served, requests: list[bytes], rate: float, seconds: float) -> Counter[int]:
    """Six connections with random pauses between their requests; how many answers of each status."""
    statuses: Counter[int] = Counter()
    end = time.perf_counter() + seconds

    async def connection(number: int) -> None:
        draw = random.Random(number)  # noqa: S311 - not a secret
        reader, writer = await asyncio.open_connection(served.host, served.port)
        while time.perf_counter() < end:
            # The service closes connections that are idle for fifteen seconds.
            await asyncio.sleep(min(10.0, draw.expovariate(rate / _CONNECTIONS)))
            statuses[await exchange(reader, writer, draw.choice(requests))] += 1
        writer.close()

    await asyncio.gather(*map(connection, range(_CONNECTIONS)))
    return statuses


async def watch(
    served: Served, requests: list[bytes], rate: float, seconds: float
) -> tuple[Counter[int], list[tuple[float, float]]]:
    """The load's statuses, and (seconds, megabytes) all the while."""
    running = asyncio.create_task(load(served, requests, rate, seconds))
    samples, started = [], time.perf_counter()
    while not running.done():
        samples.append((time.perf_counter() - started, served.own_mb()))
        if len(samples) % 24 == 0:
            print(f"{samples[-1][0] / 60:.1f} min {samples[-1][1]:.1f} MB", flush=True)
        await asyncio.wait([running], timeout=_INTERVAL_S)
    return running.result(), samples


def command(
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the run.")] = 20.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second.")] = 4.0,
    variant: Annotated[str, typer.Option(help="The model.")] = "Ti/16",
    max_patches: Annotated[int, typer.Option(min=1, help="Of the model.")] = 784,
    option: Annotated[list[str] | None, typer.Option(help="A flag for the service.")] = None,
    plot: Annotated[Path | None, typer.Option(help="SVG to write.")] = None,
    samples_csv: Annotated[Path | None, typer.Option(help="Where the samples are written.")] = None,
) -> None:
    """Memory at the start, after the warm-up and at the end, and the slope."""
    draw = random.Random(0)  # noqa: S311 - not a secret
    photos = list(photographs().values())
    images = [random_image(draw, photos) for _ in range(400)]
    requests = [random_request(draw, images, max_patches) for _ in range(1500)]
    model = artifact(variant, "--resize", "aspect", "--max-patches", str(max_patches))
    with serve(model, option or []) as served:
        statuses, samples = asyncio.run(watch(served, requests, rate, 60 * minutes))
        counters = served.counters()
    if samples_csv is not None:
        samples_csv.write_text("".join(f"{seconds:.1f},{megabytes:.2f}\n" for seconds, megabytes in samples))
    _report(samples, statuses, counters)
    if plot is not None:
        _draw(samples, plot)


def _report(samples: list[tuple[float, float]], statuses: Counter[int], counters: dict[str, float]) -> None:
    late = _after_warm_up(samples)
    steepness, error = slope([seconds / 3600 for seconds, _ in late], [megabytes for _, megabytes in late])
    images, batches = counters["patchserve_batch_images_sum"], counters["patchserve_batch_images_count"]
    print(f"statuses {dict(statuses)}, {images:.0f} images in {batches:.0f} batches, {os.cpu_count()} cores")
    print(f"start {samples[0][1]:.1f} MB, after the warm-up {late[0][1]:.1f} MB, end {samples[-1][1]:.1f} MB")
    print(f"largest {max(megabytes for _, megabytes in samples):.1f} MB")
    print(f"slope after the warm-up {steepness:+.1f} MB an hour (standard error {error:.1f})")


def _after_warm_up(samples: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return list(itertools.dropwhile(lambda sample: sample[0] < samples[-1][0] / 4, samples))


def _draw(samples: list[tuple[float, float]], path: Path) -> None:
    pyplot = importlib.import_module("matplotlib.pyplot")
    late = np.array(_after_warm_up(samples))
    steepness, _ = slope(late[:, 0].tolist(), late[:, 1].tolist())
    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    axes.plot([seconds / 60 for seconds, _ in samples], [megabytes for _, megabytes in samples], label="memory")
    line = late[:, 1].mean() + steepness * (late[:, 0] - late[:, 0].mean())
    axes.plot(late[:, 0] / 60, line, "--", label=f"{steepness * 3600:+.1f} MB an hour")
    axes.set(xlabel="minutes", ylabel="MB", ylim=(0, None))
    axes.legend()
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    typer.run(command)
