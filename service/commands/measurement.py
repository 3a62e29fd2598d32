"""`patchserve bench`: load on a service."""

import json
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.interruption import interruptible
from service.commands.remote import ApiKeyFile, one_line, open_client, read_key
from service.errors import StartError

if TYPE_CHECKING:
    from service.bench.plan import Plan
    from service.bench.samples import Figures, Sample
    from service.client import AsyncClient, ModelInfo

EXAMPLE = (
    "Examples:\n\n"
    "  patchserve bench http://localhost:8000 --connections 16\n\n"
    "  patchserve bench http://localhost:8000 --rate 50 --images photos/ --html report.html"
)


def bench(
    url: Annotated[str, typer.Argument(help="Service to load.", metavar="URL")],
    connections: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Closed loop: requests in flight; default 8.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Open loop: requests a second, at random times (Poisson).")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Measured time.")] = 10.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds of the same load before, not counted.")] = 2.0,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to send in turn; default: made-up JPEGs.")
    ] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the made-up JPEGs, pixels.")] = "224x224",
    seed: Annotated[int, typer.Option(min=0, help="Of the random times.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    api_key_file: ApiKeyFile = None,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Of one request, seconds.")] = 30.0,
) -> None:
    """Load a service and measure it: a closed loop, or with --rate an open one, whose latency counts from the due time.

    Refusals (429, 503) and failures are counted apart; only answers have a latency. The status is 0 if anything was
    answered, 1 if nothing was, 130 after Ctrl-C.
    """
    if connections is not None and rate is not None:
        raise StartError("--connections makes a closed loop and --rate an open one: give one of them")
    client = open_client(url, api_key_file, timeout_s)
    import asyncio  # noqa: PLC0415 - `--help` needs neither NumPy nor httpx nor this

    from service.bench.plan import Plan  # noqa: PLC0415 - `--help` needs neither NumPy nor httpx
    from service.bench.samples import figures_of  # noqa: PLC0415

    pictures = _pictures(images, size)
    plan = Plan(connections or 8, rate, warm_up, seconds, timeout_s, seed)
    samples: list[Sample] = []

    with interruptible(lambda: f"{len(samples)} replies had come"), one_line():
        served = asyncio.run(_measure(client, plan, url, read_key(api_key_file), pictures, samples))
    figures = figures_of(samples, warm_up, plan.total_s)
    facts = _facts(url, plan, images or f"made-up JPEGs of {size}", served)
    _show(figures, facts, as_json=as_json)
    if html is not None:
        _write(html, figures, facts)
    if not len(figures.latencies_s):
        raise typer.Exit(1)


async def _measure(
    client: "AsyncClient", plan: "Plan", url: str, key: str | None, pictures: list[bytes], samples: "list[Sample]"
) -> "list[ModelInfo]":
    """Make the load; what the service serves."""
    from service.bench.plan import carry_out  # noqa: PLC0415 - it needs httpx

    print(f"patchserve: {plan}: {plan.warm_up_s:g} s of warm-up and {plan.seconds:g} s", file=sys.stderr)  # noqa: T201
    async with client:
        served = await client.models()  # a wrong address or key is one line, not a run of failures
    await carry_out(plan, url, key, pictures, samples)
    return served


def _pictures(folder: Path | None, size: str) -> list[bytes]:
    from service.bench.photos import make_jpegs, read_folder  # noqa: PLC0415 - as above

    if folder is not None:
        return read_folder(folder)
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)
    if sides is None:
        raise StartError(f"--size: {size!r} is not WIDTHxHEIGHT, such as 640x480")
    return make_jpegs(int(sides[1]), int(sides[2]))


def _facts(url: str, plan: "Plan", pictures: object, served: "list[ModelInfo]") -> dict[str, str]:
    """How the run was made, for whoever reads the report later. The address may hold a password, which it must not."""
    default = next((model for model in served if model.default), None)
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "service": re.sub(r"//[^/@]*@", "//", url),
        "model": f"{default.name} {default.version}, {default.digest}" if default else "unknown",
        "load": str(plan),
        "time": f"{plan.seconds:g} s after {plan.warm_up_s:g} s of warm-up",
        "images": str(pictures),
        "patchserve": version("patchserve"),
    }


def _show(figures: "Figures", facts: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run": facts, **figures.to_dict()}, indent=2))  # noqa: T201
        return
    from rich.console import Console  # noqa: PLC0415 - `--json` does not need it

    from service.bench.report import parts_of  # noqa: PLC0415

    console = Console(highlight=False)
    for part in parts_of(figures):
        console.print(part)


def _write(file: Path, figures: "Figures", facts: dict[str, str]) -> None:
    from service.bench.page import page_of  # noqa: PLC0415 - only with --html

    try:
        file.write_text(page_of(figures, facts), "utf-8")
    except OSError as error:
        raise StartError(f"the report {file} cannot be written: {error.strerror}") from None
    print(f"patchserve: wrote {file}", file=sys.stderr)  # noqa: T201
