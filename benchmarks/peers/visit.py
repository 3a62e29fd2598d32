"""One visit to one server: start it, hold its answers against the right ones, measure the cells asked for, stop it."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks.peers import processes
from benchmarks.peers.catalog import Server
from benchmarks.peers.load import CONTENT_TYPES, Loaded, body_of, load, write_bodies
from benchmarks.peers.results import Cell, Result
from benchmarks.peers.servers.classifier import batch_limit
from benchmarks.peers.started import Place, started, url_of

_PORT = 18100  # below the range that the kernel gives to outgoing connections; some servers take the next four too
_WARM_UP_S = 1.0
_WARM_UP_CONNECTIONS = 8
_DRAIN_TIMEOUT_S = 40.0  # 128 requests to a base-size model, cut when the load ends


@dataclass(frozen=True, slots=True)
class Task:
    """A workload for one model.

    Attributes:
        images: the JPEGs.
        best: index of the best class of each.
        patches: of the largest image.
    """

    images: Sequence[bytes]
    best: Sequence[int]
    patches: int


def visit(
    server: Server, model: Path, tasks: Mapping[str, Task], cells: Sequence[tuple[Cell, float]], place: Place
) -> Iterator[Result]:
    """Measure cells, each given with its seconds, one after the other.

    Yields:
        A result for each cell, with an error where there is no figure.
    """
    max_batch = batch_limit(max(task.patches for task in tasks.values()), server.batch_patches)
    verdicts: dict[str, str] = {}
    _refuse_taken_port()
    with started(server, model, max_batch, place, _PORT) as running:
        error = running.error
        for cell, seconds in cells:
            workload = cell.workload
            if not error and workload not in verdicts:
                verdicts[workload] = _wrong(server, tasks[workload]) or _warm_up(server, tasks[workload], place)
            if problem := error or verdicts[workload]:
                yield Result(cell, error=problem)
            else:
                yield _measure(server, cell, write_bodies(tasks[workload].images, server.form, place.work), seconds)


def _refuse_taken_port() -> None:
    """A server that is left from elsewhere would be measured in place of the next.

    Raises:
        SystemExit: if something listens already.
    """
    with socket.socket() as client:
        if client.connect_ex(("127.0.0.1", _PORT)) == 0:
            raise SystemExit(f"something listens on 127.0.0.1:{_PORT} already")


def _wrong(server: Server, task: Task) -> str:
    """What is wrong with the answers, or nothing; eight at a time, so that batches are mixed."""
    with httpx.Client(timeout=120) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(partial(_answer, server, client), task.images))
    wrong = sum(answer != str(best) for answer, best in zip(answers, task.best, strict=True))
    odd = next((a for a, best in zip(answers, task.best, strict=True) if a != str(best)), "")
    return f"{wrong} of {len(answers)} answers are wrong, such as {odd[:200]}" if wrong else ""


def _answer(server: Server, client: httpx.Client, image: bytes) -> str:
    """Index of the best class, or what went wrong."""
    headers = {"Content-Type": CONTENT_TYPES[server.form]}
    try:
        response = client.post(url_of(server, _PORT), content=body_of(image, server.form), headers=headers)
        return str(server.best_class(response.json())) if response.status_code == 200 else str(response.status_code)
    except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
        return repr(error)


def _warm_up(server: Server, task: Task, place: Place) -> str:
    loaded = _load(server, write_bodies(task.images, server.form, place.work), _WARM_UP_CONNECTIONS, _WARM_UP_S)
    processes.wait_idle(_DRAIN_TIMEOUT_S)
    return refusals(loaded)


def _measure(server: Server, cell: Cell, bodies: Sequence[Path], seconds: float) -> Result:
    before_s = processes.cpu_s()
    loaded = _load(server, bodies, cell.connections, seconds)
    used_s = processes.cpu_s() - before_s
    processes.wait_idle(_DRAIN_TIMEOUT_S)
    if error := refusals(loaded):
        return Result(cell, error=error)
    rate = loaded.requests / loaded.duration_s
    return Result(cell, rate, loaded.p50_ms, loaded.p99_ms, 1000 * used_s / loaded.requests)


def _load(server: Server, bodies: Sequence[Path], connections: int, seconds: float) -> Loaded:
    return load(url_of(server, _PORT), CONTENT_TYPES[server.form], bodies, connections, seconds)


def refusals(loaded: Loaded) -> str:
    """Why a load gives no figure, or nothing."""
    if loaded.bad_status or loaded.broken:
        return f"{loaded.bad_status} error answers and {loaded.broken} broken connections of {loaded.requests} requests"
    return "" if loaded.requests else "no request was answered in time"
