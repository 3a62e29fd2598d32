"""How far a run is: a bar on a terminal, nothing elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Display:
    """The bar. Images that an earlier run has finished count as done, but not into the speed."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("listing", total=None, speed="")
        self._done, self._errors = 0, 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While it is on the screen."""
        with self._bar:
            yield

    def listed(self, images: int) -> None:
        """So many images were found up to now."""
        self._bar.update(self._task, completed=images)

    def begin(self, total: int, done: int) -> None:
        """Classification starts, with `done` of `total` images behind it."""
        self._bar.reset(self._task, total=total, completed=done, description="classifying")

    def advance(self, images: int, errors: int) -> None:
        """So many more are done, some of them with errors."""
        self._done += images
        self._errors += errors
        elapsed_s = self._bar.tasks[0].elapsed or 0.0
        speed = f"{self._done / elapsed_s:.1f} images/s" if elapsed_s else ""
        self._bar.update(self._task, advance=images, speed=f"{speed}, {self._errors} errors" if self._errors else speed)
