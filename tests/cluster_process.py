"""A real `patchserve cluster serve`, with a Ray of its own, and requests to it."""

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest

PHOTO = (Path(__file__).parent / "data" / "bag-224x224.jpg").read_bytes()
_COMMAND = [sys.executable, "-c", "from service.cli import main; main()", "cluster", "serve"]
_START_S, _STOP_S = 300, 120  # of Ray, on a machine that is busy with other things


class Cluster:
    """A running cluster of this machine."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.port = port

    def request(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers in lower case, and the JSON document of a reply."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method or ("POST" if body else "GET"), path, body, headers or {})
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, json.loads(text)

    def classify(self, query: str = "timeout_ms=20000") -> tuple[int, dict[str, str], dict[str, Any]]:
        """The reply to one photograph."""
        return self.request(f"/classify?{query}", PHOTO, {"content-type": "image/jpeg"})

    def replicas(self) -> list[int]:
        """Processes of the replicas, in this network alone."""
        here = Path("/proc/self/ns/net").readlink()
        return sorted(int(each.name) for each in Path("/proc").glob("[0-9]*") if _is_replica(each, here))


def _is_replica(process: Path, network: Path) -> bool:
    try:
        # Ray writes what a process does into its title.
        return process.joinpath("cmdline").read_bytes().startswith(b"ray::ServeReplica") and (
            process.joinpath("ns/net").readlink() == network
        )
    except OSError:  # ended meanwhile
        return False


@contextmanager
def cluster(*settings: str, **variables: str) -> Iterator[Cluster]:
    """Start one, wait until it serves, and end it as an operator would."""
    if {name for _, name in socket.if_nameindex()} != {"lo"}:
        pytest.fail("Ray opens ports: run these tests with make cluster-test, in a network that is loopback alone")
    port = _free_port()
    command = [*_COMMAND, f"--port={port}", "--log-level=error", "--default-timeout-ms=20000", *settings]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PATCHSERVE_")} | variables
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    listening = threading.Event()
    reader = threading.Thread(target=_read, args=(process.stdout, listening), daemon=True)
    reader.start()
    try:
        _wait_for_start(process, listening)
        yield Cluster(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
        reader.join(_STOP_S)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _read(lines: TextIO, listening: threading.Event) -> None:
    """Ray writes to the same stream: read on to its end, or it would stop when the pipe is full."""
    with lines:
        for line in lines:
            sys.stdout.write(line)
            if line.startswith("patchserve listens on"):
                listening.set()


def _wait_for_start(process: "subprocess.Popen[str]", listening: threading.Event) -> None:
    until = time.monotonic() + _START_S
    while not listening.wait(0.2):
        assert process.poll() is None, "the cluster did not start"
        assert time.monotonic() < until, "the cluster did not start in time"


class Load:
    """Clients that send one photograph after the other, each on a connection of its own, until the `with` ends.

    Attributes:
        outcomes: how many requests had each status, or `cut` when the connection ended without a reply.
        lost: when each request was sent that was not answered with 200, by the monotonic clock.
    """

    def __init__(self, cluster: Cluster, clients: int, pause_s: float = 0.0) -> None:
        self._cluster = cluster
        self._pause_s = pause_s
        self._over = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self.lost: list[float] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def _run(self) -> None:
        while not self._over.wait(self._pause_s):
            sent = time.monotonic()
            try:
                outcome = str(self._cluster.classify()[0])
            except (OSError, http.client.HTTPException, ValueError):
                outcome = "cut"
            self.outcomes[outcome] += 1
            if outcome != "200":
                self.lost.append(sent)


def kill(process: int) -> float:
    """End a process without a warning; when it and its sockets were gone, by the monotonic clock."""
    ended = os.pidfd_open(process)
    os.kill(process, signal.SIGKILL)
    select.select([ended], [], [])
    os.close(ended)
    return time.monotonic()


def wait_until(happened: Callable[[], bool], limit_s: float = 180.0) -> None:
    """Look again and again, for a time that no busy machine needs."""
    until = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.2)
