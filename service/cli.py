"""The command line: `serve`, `cluster` and `key` stand here, the others in `service.commands` and `service.batch`."""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from service.batch.command import batch
from service.commands import classification, inspection, listing, measurement, tools
from service.errors import StartError

_app = typer.Typer(
    name="patchserve",
    help="Classify images with a Vision Transformer: over HTTP, or right here.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Their settings read them.
_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

_keys = typer.Typer(help="API keys for a service.", no_args_is_help=True)
_app.command("batch")(batch)
_app.add_typer(_keys, name="key")
_cluster = typer.Typer(help="The service on many machines, with Ray.", no_args_is_help=True)
_app.add_typer(_cluster, name="cluster")


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
    context_settings=_ANY_ARGUMENTS,
)
def _serve(context: typer.Context) -> None:
    from service.artifacts import artifact_of  # noqa: PLC0415
    from service.settings import read_settings  # noqa: PLC0415 - `--version` and `--help` need none of this
    from service.tracing.opening import check_tracing  # noqa: PLC0415

    settings = read_settings(context.args)
    check_tracing(settings)  # before a checkpoint is exported, which may take minutes
    settings = settings.model_copy(update={"model": artifact_of(settings)})
    from service.cores import usable_cores  # noqa: PLC0415
    from service.processes.choice import choose_replicas  # noqa: PLC0415

    cores = usable_cores()
    http_processes, replicas = settings.http_processes(cores), choose_replicas(settings, cores)
    if replicas > 1:
        from service.processes.entry import serve_with_replicas  # noqa: PLC0415

        serve_with_replicas(settings.model_copy(update={"replicas": replicas}))
    elif http_processes == 1:
        from service.server import serve  # noqa: PLC0415 - nor does `serve --help`, or a wrong flag, need the framework

        serve(settings)
    else:
        from service.processes.entry import serve_with_processes  # noqa: PLC0415

        serve_with_processes(settings, http_processes)


_app.command("train", help=tools.TRAINING_HELP, context_settings=_ANY_ARGUMENTS)(tools.train)
_app.command("export", help=tools.EXPORT_HELP, context_settings=_ANY_ARGUMENTS)(tools.export)
_app.command("classify", epilog=classification.EXAMPLE)(classification.classify)
_app.command("bench", epilog=measurement.EXAMPLE)(measurement.bench)
_app.command("models", epilog=listing.EXAMPLE)(listing.models)
_app.command("inspect", epilog=inspection.EXAMPLE)(inspection.inspect)


@_cluster.command(
    "serve",
    help="Serve a model on Ray Serve; `patchserve cluster serve --help` lists every setting.",
    context_settings=_ANY_ARGUMENTS,
)
def _serve_cluster(context: typer.Context) -> None:
    from service.cluster_settings import read_cluster_settings  # noqa: PLC0415

    settings = read_cluster_settings(context.args)
    for name, value in settings.ray_variables().items():
        os.environ.setdefault(name, value)
    try:
        from service.cluster import serve_cluster  # noqa: PLC0415 - Ray is an extra
    except ImportError as error:
        raise StartError(f"Ray Serve cannot be imported ({error}): pip install 'patchserve[cluster]'") from None
    serve_cluster(settings)


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
