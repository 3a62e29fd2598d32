"""A server of the catalog, running on a port."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import processes
from benchmarks.peers.catalog import OURS, Server

_ROOT = Path(__file__).parents[2]
_START_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are.

    Attributes:
        environments: folder with one virtual environment per peer, by its name.
        work: folder for request bodies and logs.
    """

    environments: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Started:
    """A server, ready unless there is an error.

    Attributes:
        error: why it is not ready, or nothing.
        pid: of its first process; 0 if there is none.
    """

    error: str
    pid: int = 0


def url_of(server: Server, port: int) -> str:
    """Where it is asked."""
    return f"http://127.0.0.1:{port}{server.path}"


@contextmanager
def started(server: Server, model: Path, max_batch: int, place: Place, port: int) -> Iterator[Started]:
    """The server until the block ends."""
    programs = Path(sys.executable).parent if server.name == OURS else place.environments / server.name / "bin"
    command = [part.format(model=model, port=port) for part in server.command]
    if not (programs / command[0]).exists():
        yield Started(f"{programs / command[0]} is missing")
        return
    command[0] = str(programs / command[0])
    variables = {name: value.format(port=port) for name, value in server.variables.items()} | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
    }
    if server.name != OURS:  # that one is started as a user would
        variables |= {
            "PYTHONPATH": str(_ROOT),
            "PEER_MODEL": str(model),
            "PEER_PORT": str(port),
            "PEER_WORKERS": str(server.workers),
            "PEER_THREADS": str(server.threads),
            "PEER_MAX_BATCH": str(max_batch),
        }
    with processes.server(command, variables, _ROOT, place.work / f"{server.name}.log") as process:
        problem = processes.wait_ready(process, f"http://127.0.0.1:{port}{server.ready}", _START_TIMEOUT_S)
        yield Started(problem, process.pid)
