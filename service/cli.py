"""The command line: `patchserve serve`, `patchserve classify` and `patchserve key`."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from service.errors import StartError

_app = typer.Typer(
    name="patchserve",
    help="Classify images with a Vision Transformer: over HTTP, or right here.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_keys = typer.Typer(help="API keys for a service.", no_args_is_help=True)
_app.add_typer(_keys, name="key")


def main() -> None:
    """The console script: every known failure is one line on standard error and status 1."""
    try:
        _app()
    except StartError as error:
        print(f"patchserve: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"patchserve {version('patchserve')}")  # noqa: T201
        raise typer.Exit


@_app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options before the command."""


@_app.command(
    "serve",
    help="Serve a model over HTTP; `patchserve serve --help` lists every setting.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def _serve(context: typer.Context) -> None:
    from service.artifacts import artifact_of, is_model_folder  # noqa: PLC0415
    from service.settings import read_settings  # noqa: PLC0415 - `--version` and `--help` need none of this

    settings = read_settings(context.args)
    settings = settings.model_copy(update={"model": artifact_of(settings)})
    from service.cores import usable_cores  # noqa: PLC0415

    http_processes = settings.http_processes(usable_cores())
    if http_processes > 1 and settings.model is not None and is_model_folder(settings.model):
        if settings.http_workers:
            raise StartError("a folder of models is served by one process: leave --http-workers out, or set it to 1")
        http_processes = 1
    if http_processes == 1:
        from service.server import serve  # noqa: PLC0415 - nor does `serve --help`, or a wrong flag, need the framework

        serve(settings)
    else:
        from service.processes.entry import serve_with_processes  # noqa: PLC0415

        serve_with_processes(settings, http_processes)


@_app.command("classify")
def _classify(
    files: Annotated[list[Path], typer.Argument(help="Images.", metavar="FILES...")],
    model: Annotated[Path | None, typer.Option(help="Artifact or checkpoint; default: the bundled one.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Labels per image.")] = 5,
    max_patches: Annotated[int | None, typer.Option(min=1, help="Patch budget per image.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Classify image files without a server."""
    from service.artifacts import artifact_of  # noqa: PLC0415
    from service.offline import classify_files, render  # noqa: PLC0415
    from service.settings import EngineSettings  # noqa: PLC0415

    artifact = artifact_of(EngineSettings(model=model))
    rows = classify_files(files, model=artifact, k=k, max_patches=max_patches)
    if as_json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))  # noqa: T201
    else:
        render(rows)
    for row in rows:
        if row.error is not None:
            print(f"patchserve: {row.path}: {row.error}", file=sys.stderr)  # noqa: T201
    if any(row.error is not None for row in rows):
        raise typer.Exit(1)


@_keys.command("new")
def _new_key(
    name: Annotated[str, typer.Argument(help="Who will hold it; shown in the log and the metrics.")],
    role: Annotated[str, typer.Option(help="user, metrics or admin.")] = "user",
    rate: Annotated[str | None, typer.Option(help="Requests it may send, such as 100/second; default: any.")] = None,
) -> None:
    """Make a key: its line for --api-keys-file on standard output, the key itself, this once, on standard error."""
    from service.keys import digest_of, line_of, new_key, parse_key  # noqa: PLC0415

    key = new_key()
    made = parse_key(":".join([name, role, digest_of(key.encode()).hex(), *([rate] if rate else [])]), "this key")
    print(line_of(made))  # noqa: T201
    print(f"the key, shown only now: {key}", file=sys.stderr)  # noqa: T201
