"""A real `patchserve serve` process and raw conversations with it."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without our own variables, and with `changes`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PATCHSERVE_")} | changes


class ServedProcess:
    """A running service."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stdout is not None
        announced = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert announced, "the service did not start"
        self.port = int(announced[1])

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as reply:
            return reply.code, reply.read().decode()

    def connect(self) -> "Conversation":
        """A new connection."""
        return Conversation(self.port)

    def say(self, *messages: bytes, wait_s: float = 5.0) -> bytes:
        """Send messages on a new connection; everything that comes back until the server closes, or falls silent."""
        with self.connect() as conversation:
            for message in messages:
                conversation.send(message)
            return conversation.everything(wait_s)


class Conversation:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: bytes) -> None:
        """Send all of it, or stop quietly if the server has closed."""
        try:
            self.socket.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            return

    def everything(self, wait_s: float = 5.0) -> bytes:
        """All bytes until the end; a connection that stays open ends after `wait_s`."""
        received, until = b"", time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                chunk = self.socket.recv(65536)
            except TimeoutError:
                return received
            if not chunk:
                return received
            received += chunk
        return received

    def reply(self) -> bytes:
        """One whole reply with a Content-Length."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        length = re.search(rb"content-length: (\d+)", received.lower())
        assert length, received
        total = received.index(b"\r\n\r\n") + 4 + int(length[1])
        while len(received) < total:
            received += self._more()
        return received

    def _more(self) -> bytes:
        chunk = self.socket.recv(65536)
        assert chunk, "the server closed before its reply was complete"
        return chunk


def statuses(received: bytes) -> list[int]:
    """The statuses of all replies in a stream of bytes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


@contextmanager
def served(
    model: Path,
    *,
    stderr: TextIO | None = None,
    variables: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    command: Sequence[str] = (),
    **settings: Any,
) -> Iterator[ServedProcess]:
    """Start a service on a free port; it is ended, by force if need be, when the test is over.

    By default all of it is one process. `stderr` takes the log, `variables` are added to the environment, `prefix` is a
    command that runs the service, `command` takes the place of `patchserve serve MODEL`.
    """
    settings = {"http_workers": 1, "log_level": "error"} | settings
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    whole = [*prefix, *(command or [*COMMAND, "serve", str(model)]), "--port=0", *flags]
    process = subprocess.Popen(
        whole, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(**(variables or {}))
    )
    try:
        yield ServedProcess(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
