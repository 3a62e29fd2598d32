"""What attention costs: an artifact with it beside the same one without.

    python -m export.to_onnx --random Ti/16 -o plain.onnx --quick-check
    python -m export.to_onnx --random Ti/16 -o explained.onnx --quick-check --explain
    python -m benchmarks.explain plain.onnx explained.onnx

The engine of the service with one lane, native grid, random pixels. Each round visits every case in turn; printed are
the median over rounds and the median of the ratio to the artifact without attention. Memory is that of a process that
has loaded and warmed up one engine. Recorded runs are in docs/explain.md.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.rounds import interleave, ratio
from service.engine import Engine
from service.extras import Extras
from service.settings import EngineSettings

_MEMORY = """
import sys
from pathlib import Path
from service.engine import Engine
from service.settings import EngineSettings
engine = Engine(EngineSettings(model=Path(sys.argv[1]), engine_lanes=1, engine_threads=int(sys.argv[2])))
engine.warm_up()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def main(
    plain: Path,
    explained: Path,
    rounds: Annotated[int, typer.Option(help="Visits of each case.")] = 60,
    batches: Annotated[str, typer.Option(help="Images of a batch, separated by commas.")] = "1,8",
    threads: Annotated[int, typer.Option(help="Of the engine.")] = 1,
) -> None:
    """Measure, and print."""
    for path in (plain, explained):
        print(f"{path.name}: {_memory_mb(path, threads):.0f} MB")
    without, within = _opened(plain, threads), _opened(explained, threads)
    for batch in map(int, batches.split(",")):
        seconds = interleave(_cases(without, within, batch), rounds)
        for name, taken in seconds.items():
            taken_ms = 1000 * statistics.median(taken)
            print(f"batch {batch:2}  {name:22} {taken_ms:8.2f} ms  {ratio(taken, seconds['plain']):.3f}")


def _opened(path: Path, threads: int) -> Engine:
    engine = Engine(EngineSettings(model=path, engine_lanes=1, engine_threads=threads))
    engine.warm_up()
    return engine


def _cases(plain: Engine, explained: Engine, batch: int) -> dict[str, Callable[[], Any]]:
    spec = plain.model.manifest.preprocessing
    patches = np.random.default_rng(0).integers(0, 256, (batch, spec.native_patches, spec.patch_dim), np.uint8)
    grid = np.tile(np.array(spec.native_grid, np.int64), (batch, 1))
    return {
        "plain": lambda: plain.run(patches, grid),
        "explained, logits": lambda: explained.run(patches, grid),
        "explained, embedding": lambda: explained.infer(patches, grid, Extras.EMBEDDING),
        "explained, attention": lambda: explained.infer(patches, grid, Extras.ATTENTION),
    }


def _memory_mb(path: Path, threads: int) -> float:
    command = [sys.executable, "-c", _MEMORY, str(path), str(threads)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


if __name__ == "__main__":
    typer.run(main)
