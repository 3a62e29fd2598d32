"""`patchserve models`: what a service serves."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.interruption import interruptible
from service.commands.remote import ApiKeyFile, TimeoutS, one_line, open_client

if TYPE_CHECKING:
    from service.client import AsyncClient, ModelInfo

EXAMPLE = "Example:\n\n  patchserve models --url http://localhost:8000"
_MOST_WIDTH = 500  # letters of a line
_DIGEST_LETTERS = 19  # sha256: and twelve more, enough to tell files apart


def models(
    url: Annotated[str, typer.Option(help="Service to ask.")] = "http://localhost:8000",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with whole digests.")] = False,
    api_key_file: ApiKeyFile = None,
    timeout_s: TimeoutS = 10.0,
) -> None:
    """List the models of a service: names, versions, digests, states."""
    import asyncio  # noqa: PLC0415 - a quarter of the start of every command

    with interruptible(lambda: "the service had not answered"), one_line():
        served = asyncio.run(_ask(open_client(url, api_key_file, timeout_s)))
    if as_json:
        print(json.dumps([asdict(model) for model in served], indent=2))  # noqa: T201
    else:
        _show(served)


async def _ask(client: "AsyncClient") -> "list[ModelInfo]":
    async with client:
        return await client.models()


def _show(served: "Sequence[ModelInfo]") -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - `--json` does not need it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    columns = ("Name", "Version", "Digest", "State", "Runs on", "Labels", "Patches", "Answers to")
    table = Table(*columns, box=SIMPLE_HEAD)
    for model in served:
        calls = [f"{model.name}@{model.version}", *([model.name] if model.newest else [])]
        cells = (model.name, model.version, model.digest[:_DIGEST_LETTERS], model.state, model.provider)
        names = ", ".join([*calls, *(["no name"] if model.default else [])])
        table.add_row(*map(Text, cells), str(model.classes), str(model.max_patches), Text(names))
    console = Console()
    # Names are there to be copied: a narrow terminal breaks the line, and no cell is cut.
    widest = console.measure(table, options=console.options.update(max_width=_MOST_WIDTH)).maximum
    console.width = max(console.width, widest)
    console.print(table)
