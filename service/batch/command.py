"""`patchserve batch`: from options to what is printed and the exit status."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.errors import BatchError

if TYPE_CHECKING:
    from service.batch.run import Summary
    from service.settings import Settings

_STOPPED = "patchserve: stopped; the same command goes on where this one ended"


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders (with all below them), .txt lists with one path a line, .parquet files, uncompressed .tar "
            "files (WebDataset). Wildcards and braces may be quoted: 'shard-{000..127}.tar'.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The Parquet file to write.")],
    model: Annotated[Path | None, typer.Option(help="Artifact or checkpoint; default: the bundled one.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=100, help="Labels per image.")] = 5,
    max_patches: Annotated[int | None, typer.Option(min=1, help="Patch budget per image.")] = None,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="A column with the features too.")] = False,
    column: Annotated[
        str | None, typer.Option(help="Of the images in Parquet files; default: image, or the only one of bytes.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="cpu (the default), cuda or tensorrt.")] = None,
    part_images: Annotated[int, typer.Option(min=1, help="Images that a kill can cost each engine.")] = 128,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output, at the end.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished run away.")] = False,
    fail_on_error: Annotated[bool, typer.Option("--fail-on-error", help="Status 1 if any image has one.")] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Engines side by side on this machine, each in a process of its own; default: on a CPU one for each "
            "core if they fit into half of the memory, else 1.",
        ),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="On a Ray cluster, or on a Ray of this machine's own.")] = False,
    ray_actors: Annotated[int, typer.Option(min=1, help="Engines.")] = 1,
    ray_cpus: Annotated[int, typer.Option(min=1, help="Cores of one engine.")] = 1,
    ray_gpus: Annotated[float, typer.Option(min=0, help="GPUs of one engine.")] = 0,
) -> None:
    """Classify a data set into one Parquet file; killed and started again it goes on.

    Settings of `patchserve serve` that concern engine, batches and images apply as environment variables.
    """
    if ray and processes is not None:
        raise BatchError("--processes and --ray exclude each other: with --ray, --ray-actors says how many engines")
    try:
        import pyarrow  # noqa: F401, PLC0415 - else the imports below fail with a traceback
    except ImportError:
        raise BatchError("patchserve batch needs the extra batch: pip install 'patchserve[batch]'") from None
    from service.artifacts import artifact_of  # noqa: PLC0415
    from service.settings import read_settings  # noqa: PLC0415

    flags = ["--provider", provider] if provider else []
    settings = read_settings([*flags, *([str(model)] if model else [])])
    settings = settings.model_copy(update={"model": artifact_of(settings)})
    if not ray:
        processes = _prepare(settings, processes)
    from service.batch.run import Order, classify_data_set  # noqa: PLC0415 - what it imports takes time
    from service.batch.worker import Wanted  # noqa: PLC0415

    wanted = Wanted(k, max_patches, embeddings)
    order = Order(inputs, output, wanted, column, part_images, overwrite=overwrite, restart=restart)
    started = time.monotonic()
    try:
        if ray:
            from service.batch.ray_data import Pool, classify_with_ray  # noqa: PLC0415

            summary = classify_with_ray(order, settings, Pool(ray_actors, ray_cpus, ray_gpus))
        else:
            summary = classify_data_set(order, settings, processes or 1)
    except KeyboardInterrupt:
        print(_STOPPED, file=sys.stderr)  # noqa: T201
        raise typer.Exit(130) from None
    _report(summary, output, time.monotonic() - started)
    if summary.errors and fail_on_error:
        raise BatchError(f"{summary.errors} of {summary.images} images have errors, see the column error of {output}")


def _prepare(settings: "Settings", wanted: int | None) -> int:
    """Choose the processes, and let the imports of several begin before ours."""
    from service.batch.choice import choose_processes  # noqa: PLC0415
    from service.batch.server import start_server  # noqa: PLC0415

    number = choose_processes(settings, wanted)
    if number > 1:
        start_server()
    return number


def _report(summary: "Summary", output: Path, seconds: float) -> None:
    if summary.signal is not None:
        print(f"{_STOPPED}; {summary.done} of {summary.images} images are done", file=sys.stderr)  # noqa: T201
        raise typer.Exit(128 + summary.signal)
    print(f"{output}: {summary.images} images, {summary.errors} with errors, in {seconds:.1f} s")  # noqa: T201
