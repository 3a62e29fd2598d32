"""`patchserve classify`: files and folders, by a service or right here."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.image_files import expand
from service.commands.interruption import interruptible
from service.commands.remote import ApiKeyFile, TimeoutS, one_line, open_client
from service.commands.rows import FileResult, RowFormat, open_writer
from service.errors import StartError

if TYPE_CHECKING:
    from service.client import AsyncClient, Options, Outcome

EXAMPLE = (
    "Examples:\n\n"
    "  patchserve classify photos/ holiday.jpg\n\n"
    "  patchserve classify photos/ --url http://localhost:8000 --format csv > labels.csv"
)


def classify(
    paths: Annotated[list[Path], typer.Argument(help="Images, and folders of them.", metavar="PATHS...")],
    url: Annotated[str | None, typer.Option(help="Service to ask; default: none, the model runs here.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Artifact or checkpoint, default the bundled one; with --url NAME or NAME@VERSION."),
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", "--k", min=1, help="Labels per image; default 5, or all if there are fewer.")
    ] = None,
    max_patches: Annotated[int | None, typer.Option(min=1, help="Patch budget per image.")] = None,
    format_: Annotated[RowFormat, typer.Option("--format", help="How results are written.")] = RowFormat.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Images at a time, with --url.")] = 8,
    api_key_file: ApiKeyFile = None,
    timeout_s: TimeoutS = 10.0,
) -> None:
    """Classify image files, with a service (--url) or without one.

    The status is 0 if every image was classified, 1 if one was not, 130 after Ctrl-C.
    """
    files = expand(paths)
    rows = _Rows(RowFormat.JSON if as_json else format_, len(files))
    with interruptible(rows.so_far), rows:
        if url is None:
            _here(files, rows, model, k, max_patches)
        else:
            import asyncio  # noqa: PLC0415 - a quarter of the start of every command

            options: Options = {"model": None if model is None else str(model), "k": k, "max_patches": max_patches}
            asyncio.run(_there(open_client(url, api_key_file, timeout_s), files, rows, concurrency, options))
    rows.report()


class _Rows:
    """Writes rows and counts them, with a bar on the terminal if there are several: `with rows: rows.add(row)`."""

    def __init__(self, chosen: RowFormat, count: int) -> None:
        self._format = chosen
        self._count = count
        self._done = 0
        self._errors: list[str] = []

    def __enter__(self) -> "_Rows":
        self._writer = open_writer(self._format)
        self._bar = _bar(self._count, streams=self._format.streams)
        self._advance = self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.__exit__(None, None, None)
        if kind is None or self._done:
            self._writer.close()

    def add(self, row: FileResult) -> None:
        """One more file is done."""
        self._done += 1
        if row.error is not None:
            self._errors.append(f"patchserve: {row.path}: {row.error}")
        self._writer.write(row)
        self._advance()

    def so_far(self) -> str:
        """For whoever interrupts."""
        return f"{self._done} of {self._count} images were done"

    def report(self) -> None:
        """Say what failed. Raises: typer.Exit: with status 1 if anything did."""
        for line in self._errors:
            print(line, file=sys.stderr)  # noqa: T201
        if self._errors:
            raise typer.Exit(1)


def _here(files: Sequence[Path], rows: _Rows, model: Path | None, k: int | None, max_patches: int | None) -> None:
    from service.artifacts import artifact_of  # noqa: PLC0415 - these load the engine
    from service.offline import classify_files  # noqa: PLC0415
    from service.settings import EngineSettings  # noqa: PLC0415

    artifact = artifact_of(EngineSettings(model=model))
    for row in classify_files(files, model=artifact, k=k or 5, max_patches=max_patches):
        rows.add(row)


async def _there(
    client: "AsyncClient", files: Sequence[Path], rows: _Rows, concurrency: int, options: "Options"
) -> None:
    """Ask a service for every file.

    Raises:
        StartError: if the service cannot be asked, or is gone.
    """
    from service.client import NoConnection  # noqa: PLC0415 - it needs httpx

    with one_line():
        async with client:
            await client.models()  # a wrong address or key is one line, not one for each file
            async with aclosing(client.classify_many(files, concurrency=concurrency, **options)) as outcomes:
                async for outcome in outcomes:
                    if isinstance(outcome.error, NoConnection) and not await client.ready():
                        raise StartError(f"{outcome.error}; {rows.so_far()}")
                    rows.add(_row(outcome))


def _row(outcome: "Outcome") -> FileResult:
    path, answer = Path(outcome.name), outcome.classification
    if answer is None:
        return FileResult(path, error=str(outcome.error))
    return FileResult(path, answer.predictions, answer.grid, answer.degraded)


@contextmanager
def _bar(count: int, *, streams: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error, where that is a terminal which no rows are written to at the same time."""
    if count < 2 or not sys.stderr.isatty() or (streams and sys.stdout.isatty()):
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - nothing to draw otherwise
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Not redirected: rows belong to standard output, which may be a file.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=count)
        yield lambda: progress.advance(task)
