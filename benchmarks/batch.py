"""`patchserve batch` beside the same work in a loop without files of results: images per second, memory, kills.

    python -m benchmarks.batch ~/photos --images 10000 --models Ti/16,bundled --rounds 1 --kills 3

Makes the photographs when they are missing: 2,000 JPEGs of 20 sizes from 224x224 to 2048x1365, each another picture,
and copies of them. A round measures both forms of `benchmarks.peers.ceiling` on the first files, then the command on
all of them, then the ceilings again; the better mean of the two forms is the ceiling of the round. The rate of the
command is that of the whole process, with its start, the list and the merged file. With `--kills` one more run is
killed that many times and goes on, and its rows are compared with those of the last whole run. Recorded in
docs/batch.md.
"""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import typer
from PIL import Image

from benchmarks.peers.ceiling import FORMS
from benchmarks.peers.photos import make_jpegs
from benchmarks.served import artifact
from service.artifacts import bundled_model
from service.footprint import resident_bytes

_BASES = make_jpegs("mixed")
_PICTURES = 2000  # then copies: encoding more would take longer than the measurement
_PART_IMAGES = 128  # of the command, by default
_PAST_A_PART_S = 0.5  # kills are to come in the middle of things
_LOOK_EVERY_S = 0.05
_OF_CEILING = 200  # files: ten of each size


def make_photos(folder: Path, images: int) -> None:
    """The data set, 100 files in a folder; what is there already stays."""
    missing = [number for number in range(images) if not _path(folder, number).exists()]
    pictures = [number for number in missing if number < _PICTURES]
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(_make, [folder] * len(pictures), pictures, chunksize=50):
            pass
    for number in missing[len(pictures) :]:
        _path(folder, number).parent.mkdir(exist_ok=True)
        shutil.copyfile(_path(folder, number % _PICTURES), _path(folder, number))


def run_ceiling(model: Path, files: Path, form: str, seconds: float) -> float:
    """Images per second of one form, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peers.ceiling", str(model), str(files)]
    command += ["--form", form, "--seconds", str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_batch(model: Path, folder: Path, output: Path, *options: str, kill_at: int = 0) -> tuple[float, float]:
    """Seconds and the most memory of all processes, megabytes, of the command; killed at so many parts, if wanted."""
    command = [str(Path(sys.executable).with_name("patchserve")), "batch", str(folder), "--output", str(output)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--model", str(model), *options], stdout=subprocess.DEVNULL)
    memory = 0.0
    while process.poll() is None:
        memory = max(memory, resident_bytes(process.pid))
        if kill_at and _parts(output) >= kill_at:
            time.sleep(_PAST_A_PART_S)
            process.kill()
        time.sleep(_LOOK_EVERY_S)
    if process.returncode and not kill_at:
        raise SystemExit(f"patchserve batch ended with status {process.returncode}")
    return time.perf_counter() - started, memory / 1e6


def measure(name: str, model: Path, folder: Path, work: Path, images: int, seconds: float) -> float:
    """One round; the ratio to the ceiling."""
    files = work / "first"
    before = {form: run_ceiling(model, files, form, seconds) for form in FORMS}
    took_s, memory_mb = run_batch(model, folder, work / f"{_plain(name)}.parquet", "--overwrite")
    after = {form: run_ceiling(model, files, form, seconds) for form in FORMS}
    ceilings = {form: (before[form] + after[form]) / 2 for form in FORMS}
    best = max(ceilings, key=lambda form: ceilings[form])
    ratio = images / took_s / ceilings[best]
    drift = after[best] / before[best]
    print(
        f"{name}: {images} images in {took_s:.1f} s, {images / took_s:.1f} images/s; ceiling {ceilings[best]:.1f} "
        f"({best}; after / before {drift:.3f}), ratio {ratio:.3f}; {memory_mb:.0f} MB",
        flush=True,
    )
    return ratio


def kill_and_resume(name: str, model: Path, folder: Path, work: Path, images: int, kills: int) -> None:
    """Kill one run again and again, let it end, and compare."""
    whole, output = work / f"{_plain(name)}.parquet", work / "killed.parquet"
    output.unlink(missing_ok=True)
    took_s = []
    for number in range(kills + 1):
        last = number == kills
        kill_at = 0 if last else images * (number + 1) // (_PART_IMAGES * (kills + 1))
        seconds, _ = run_batch(model, folder, output, kill_at=kill_at)
        took_s.append(seconds)
        print(
            f"  run {number + 1}: {seconds:.1f} s, " + ("complete" if last else f"killed with {_parts(output)} parts")
        )
    same = pq.read_table(output).equals(pq.read_table(whole))
    print(f"{name}: {kills} kills, {sum(took_s):.1f} s in all, {images} rows, the same: {same}", flush=True)


def _make(folder: Path, number: int) -> None:
    path = _path(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(number)
    pixels = np.asarray(Image.open(BytesIO(_BASES[number % len(_BASES)])))
    moved = np.roll(pixels, (draw.integers(pixels.shape[0]), draw.integers(pixels.shape[1])), (0, 1))
    Image.fromarray(moved[:, :: draw.choice((-1, 1))]).save(path, "JPEG", quality=90)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number // 100:04}" / f"{number:06}.jpg"


def _parts(output: Path) -> int:
    return len(list(output.with_name(f"{output.name}.partial").glob("part-*.parquet")))


def _first(folder: Path, work: Path) -> Iterator[Path]:
    """Links to the files of the ceiling: it has them in memory."""
    (work / "first").mkdir(exist_ok=True)
    for number in range(_OF_CEILING):
        link = work / "first" / f"{number:03}.jpg"
        link.unlink(missing_ok=True)
        link.symlink_to(_path(folder, number).absolute())
        yield link


def _plain(name: str) -> str:
    return name.replace("/", "-")


def command(
    folder: Annotated[Path, typer.Argument(help="Of the photographs; results go beside it.")],
    images: Annotated[int, typer.Option(min=_OF_CEILING, help="Of the data set.")] = 10_000,
    models: Annotated[str, typer.Option(help="Variants with random weights, or bundled, with commas.")] = "Ti/16",
    rounds: Annotated[int, typer.Option(min=1, help="Of each model.")] = 1,
    seconds: Annotated[float, typer.Option(min=1, help="Of one ceiling.")] = 20.0,
    kills: Annotated[int, typer.Option(min=0, help="Of one more run of the first model.")] = 0,
) -> None:
    """Images per second, the ratio to the ceiling, memory, and what kills cost."""
    work = folder.with_name(f"{folder.name}-results")
    work.mkdir(parents=True, exist_ok=True)
    make_photos(folder, images)
    images = sum(1 for _ in folder.glob("*/*.jpg"))  # the folder may have more from before, and all are classified
    list(_first(folder, work))
    chosen = {name: bundled_model() if name == "bundled" else artifact(name) for name in models.split(",")}
    for name, model in chosen.items():
        ratios = [measure(name, model, folder, work, images, seconds) for _ in range(rounds)]
        print(f"{name}: median ratio {statistics.median(ratios):.3f}", flush=True)
    if kills:
        name = next(iter(chosen))
        kill_and_resume(name, chosen[name], folder, work, images, kills)


if __name__ == "__main__":
    typer.run(command)
