"""Ctrl-C ends a command with one line and status 130, as shells expect it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

STATUS = 130


@contextmanager
def interruptible(so_far: Callable[[], str]) -> Iterator[None]:
    """Around the work of a command; `so_far` says what was done until then."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"patchserve: interrupted; {so_far()}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(STATUS) from None
