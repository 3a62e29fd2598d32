"""Images per second on a GPU, against a torch.compile loop in float16 with flash attention.

    python -m benchmarks.gpu                                   # B/16 and L/16, float16, CUDA
    python -m benchmarks.gpu --provider cpu --variants Ti/16 --batches 1,2 --seconds 0.5 --rounds 1   # dry run

Per variant and batch size, from uint8 patches (torch: uint8 pixels) in host memory to float32 logits in host memory:
    plain     new memory for every batch, ONNX Runtime's own copies
    bound     page-locked double buffers and IO binding, the next batch copied while one runs: what the service does
    graphs    the same, each shape replayed as one CUDA graph (only on CUDA)
    torch     timm's model of the same shape, torch.compile, float16, flash attention alone
Then a stream of random lengths, each batch in its own shape against padded to buckets, and the service over HTTP with
224x224 JPEGs. A contender that fails prints its error and the rest goes on. Rounds are interleaved, ratios are medians
of ratios within a round; utilisation is nvidia-smi's, sampled five times a second. Weights are random. Its
output is the table of docs/performance/gpu.md. Needs
onnxruntime-gpu, torch with CUDA and timm; without a GPU it ends with one line.
"""

import asyncio
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from benchmarks.images import make_jpegs
from benchmarks.load import closed_loop, request_of
from benchmarks.rounds import ratio
from benchmarks.served import artifact, service
from model.preprocess import PatchSequence
from service.batching import BatchLimits, assemble
from service.devices import HostDevice
from service.engine import Engine
from service.errors import StartError
from service.providers import check_support, import_runtime, provider_list, session_options
from service.runner import BatchRunner
from service.settings import EngineSettings

Provider = Literal["cpu", "cuda", "tensorrt"]
Work = Callable[[float], float]  # seconds to run -> images per second
_TIMM = {"Ti/16": "vit_tiny", "S/16": "vit_small", "B/16": "vit_base", "L/16": "vit_large"}


def sequences(lengths: list[int], patch_dim: int) -> list[PatchSequence]:
    """Images of noise."""
    draw = np.random.default_rng(0)
    return [PatchSequence(draw.integers(0, 256, (n, patch_dim), np.uint8), (1, n), 16, 16, "PNG") for n in lengths]


def plain(settings: EngineSettings, batch: list[PatchSequence]) -> Work:
    """One thread: stack, run, next."""
    runtime, content = import_runtime(), (settings.model or Path()).read_bytes()
    session = runtime.InferenceSession(
        content, session_options(runtime, settings), providers=provider_list(settings, content)
    )

    def once() -> int:
        patches, grid = assemble(batch)
        return len(session.run(["logits"], {"patches": patches, "grid": grid})[0])

    return _repeated(once)


def bound(settings: EngineSettings, batches: list[list[PatchSequence]]) -> Work:
    """Two batches under way, as the scheduler has."""
    engine = Engine(settings, HostDevice() if settings.provider == "cpu" else None)
    images = max(map(len, batches))
    longest = max(len(each.patches) for batch in batches for each in batch)
    runner = BatchRunner(engine, time.perf_counter, engine.open_memory(BatchLimits(images * longest, images, 0)))
    runner.warm_up()

    async def stream(seconds: float) -> float:
        answered, source, end = 0, cycle(batches), time.perf_counter() + seconds

        async def one() -> None:
            nonlocal answered
            while time.perf_counter() < end:
                run = await runner.run(next(source))  # not in the sum: `+=` reads its left side before it waits
                answered += len(run.rankings)

        started = time.perf_counter()
        await asyncio.gather(one(), one())
        return answered / (time.perf_counter() - started)

    return lambda seconds: asyncio.run(stream(seconds))


def compiled_torch(variant: str, images: int, *, on_gpu: bool) -> Work:
    """Pixels to the device, normalise, forward, logits back; the copy does not wait for the one before."""
    import timm  # noqa: PLC0415 - the other contenders need neither
    import torch  # noqa: PLC0415
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415

    device, kind = ("cuda", torch.float16) if on_gpu else ("cpu", torch.float32)
    model = timm.create_model(f"{_TIMM[variant]}_patch16_224").eval().to(device, kind)
    compiled: Any = torch.compile(model)
    pixels = torch.randint(0, 256, (images, 3, 224, 224), dtype=torch.uint8)
    pixels = pixels.pin_memory() if on_gpu else pixels

    def once() -> int:
        batch = pixels.to(device, non_blocking=True).to(kind).div_(127.5).sub_(1.0)
        with torch.inference_mode(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return len(compiled(batch).float().cpu())

    return _repeated(once)


def _repeated(once: Callable[[], int]) -> Work:
    def work(seconds: float) -> float:
        answered, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            answered += once()
        return answered / (time.perf_counter() - started)

    return work


@contextmanager
def utilisation(*, on_gpu: bool) -> Iterator[list[float]]:
    """Percent of the time that the GPU was busy; empty without one."""
    samples: list[float] = []
    if not on_gpu:
        yield samples
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200", "-i", "0"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        yield samples
        process.terminate()
        text, _ = process.communicate()
    samples += [float(line) for line in text.splitlines() if line.strip().isdigit()]


def compare(
    title: str, opened: dict[str, Callable[[], Work]], base: str, seconds: float, rounds: int, *, on_gpu: bool
) -> None:
    """Print one table row per contender; `base` is what ratios are taken to."""
    works: dict[str, Work] = {}
    for name, opener in opened.items():
        try:
            works[name] = opener()
            works[name](seconds / 2)
        except Exception as error:  # noqa: BLE001 - a contender that fails is a row of the table
            works.pop(name, None)
            print(f"| {title} | {name} | failed: {(str(error) or type(error).__name__).splitlines()[0][:150]} | | |")
    speeds: dict[str, list[float]] = {name: [] for name in works}
    busy: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            with utilisation(on_gpu=on_gpu) as samples:
                speeds[name].append(work(seconds))
            busy[name] += samples
    for name, values in speeds.items():
        share = f"{ratio(values, speeds[base]):.2f}" if base in speeds else "-"
        used = f"{statistics.mean(busy[name]):.0f} %" if busy[name] else "-"
        print(f"| {title} | {name} | {statistics.median(values):.1f} | {share} | {used} |", flush=True)


def command(
    provider: Annotated[Provider, typer.Option(help="cpu is a dry run.")] = "cuda",
    variants: Annotated[str, typer.Option(help="Separated by commas.")] = "B/16,L/16",
    batches: Annotated[str, typer.Option(help="Images of a batch, separated by commas.")] = "1,8,32,64,128",
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="All contenders, one after the other.")] = 3,
    connections: Annotated[int, typer.Option(min=0, help="To the service; 0 leaves it out.")] = 128,
) -> None:
    """Print the tables of docs/performance/gpu.md."""
    on_gpu = provider != "cpu"
    _check(provider)
    print("| what | contender | images/s | ratio | GPU busy |\n|---|---|---|---|---|")
    for variant in variants.split(","):
        options = (
            *(("--precision", "float16") if on_gpu else ()),
            *(("--opset", "18") if provider == "tensorrt" else ()),
        )
        path = artifact(variant, *options)
        fixed = EngineSettings(model=path, provider=provider, length_buckets="none")
        for images in map(int, batches.split(",")):
            batch = sequences([196] * images, 768)
            graphs = EngineSettings(model=path, provider=provider, length_buckets="196", cuda_graphs=True)
            opened: dict[str, Callable[[], Work]] = {
                "plain": partial(plain, fixed, batch),
                "bound": partial(bound, fixed, [batch]),
                "torch": partial(compiled_torch, variant, images, on_gpu=on_gpu),
            }
            if provider == "cuda":
                opened["graphs"] = partial(bound, graphs, [batch])
            compare(f"{variant}, batch {images}", opened, "torch", seconds, rounds, on_gpu=on_gpu)
        lengths = np.sort(np.random.default_rng(1).integers(64, 197, (40, 8)), axis=None).reshape(40, 8)
        stream = [sequences(row.tolist(), 768) for row in lengths]
        padded = EngineSettings(model=path, provider=provider, length_buckets="64,80,100,125,156,196")
        compare(
            f"{variant}, lengths 64 to 196, batch 8",
            {"own shapes": partial(bound, fixed, stream), "buckets": partial(bound, padded, stream)},
            "own shapes", seconds, rounds, on_gpu=on_gpu,
        )  # fmt: skip
        if connections:
            _serve(variant, ["--provider", provider, "--max-batch-patches", "12544"], path, connections, seconds)


def _serve(variant: str, options: list[str], path: Path, connections: int, seconds: float) -> None:
    with service(path, options) as (host, port):
        requests = [request_of(image, host) for image in make_jpegs(224, 224)]
        measured = asyncio.run(closed_loop(host, port, requests, connections, seconds))
    print(f"| {variant}, HTTP, {connections} connections | service | {measured.requests_per_s:.1f} | | |", flush=True)


def _check(provider: Provider) -> None:
    """One line where there is nothing to measure on."""
    if provider == "cpu":
        return
    try:
        check_support(import_runtime(), EngineSettings(provider=provider), b"", Path("-"))
        subprocess.run(["nvidia-smi"], check=True, capture_output=True)  # noqa: S607 - wherever the driver put it
    except StartError as error:
        raise SystemExit(f"no GPU benchmark here: {error}") from None
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("no GPU benchmark here: nvidia-smi does not answer") from None


if __name__ == "__main__":
    typer.run(command)
