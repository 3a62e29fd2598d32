"""What commands that ask a service have in common: their options, the key, the client, and errors as one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.errors import StartError

if TYPE_CHECKING:
    from service.client import AsyncClient

ApiKeyFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the API key; <(printenv KEY) in bash. No option holds it: others would see it."),
]
TimeoutS = Annotated[float, typer.Option(min=0.001, help="Of one attempt, seconds.")]


def read_key(file: Path | None) -> str | None:
    """The API key in a file.

    Raises:
        StartError: if it cannot be read.
    """
    if file is None:
        return None
    try:
        return file.read_text("ascii").strip()
    except OSError as error:
        raise StartError(f"the API key file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"the API key file {file} holds no key: it is not plain text") from None


def require_httpx() -> None:
    """Raises: StartError: if the library that asks is not installed."""
    try:
        import httpx  # noqa: F401, PLC0415 - it is an extra
    except ImportError:
        raise StartError("asking a service needs httpx: pip install 'patchserve[client]'") from None


def open_client(url: str, key_file: Path | None, timeout_s: float) -> "AsyncClient":
    """A client for the options of a command.

    Raises:
        StartError: if they cannot be used, or httpx is not installed.
    """
    require_httpx()
    from service.client import AsyncClient  # noqa: PLC0415 - it needs httpx

    try:
        return AsyncClient(url, api_key=read_key(key_file), timeout_s=timeout_s)
    except ValueError as error:
        raise StartError(str(error)) from None


@contextmanager
def one_line() -> Iterator[None]:
    """Turn an error of the client into the one line that ends a command."""
    from service.calls.failures import CallError  # noqa: PLC0415 - to be asked only once a service is

    try:
        yield
    except CallError as error:
        raise StartError(str(error)) from None
