"""What a request costs the host: CPU-milliseconds of all server processes, with an engine that takes no time.

    python -m benchmarks.host_cost
    python -m benchmarks.host_cost --server patchserve --server empty --connections 1

The engine is an ONNX file with the manifest of a ViT-Ti/16 (224x224, patches of 16, 1,000 classes) whose graph answers
constants, so what is left is all that surrounds an engine: HTTP, multipart, JPEG, resizing, patches, queue, reply. wrk
posts one 224x224 JPEG over and over, as a multipart part named `file` and as a raw body. User and system time of the
server's process and all its descendants, from /proc/PID/stat before and after, is divided by the answered requests.
Every server starts once; then the servers take turns for `--rounds` rounds, and the medians are printed.

- empty: FastAPI with one `UploadFile` and nothing behind it, the floor of that framework
- plain: FastAPI with a `def` endpoint that calls our preprocessing and the same ONNX file itself
- patchserve: `patchserve serve`

Linux only; wrk must be installed. Recorded runs are in docs/performance/host-cost.md.
"""

import ctypes
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from fastapi import FastAPI, UploadFile
from onnx import TensorProto, helper, numpy_helper

from benchmarks.images import make_jpegs
from model.headers import ImageLimits
from model.manifest import METADATA_KEY, Manifest, Preprocessing, Provenance
from model.preprocess import preprocess
from service.engine import Engine
from service.predictions import top_k
from service.settings import EngineSettings

_MODEL_VARIABLE = "HOST_COST_MODEL"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_BOUNDARY = "host-cost"
_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.stderr:write(string.format('{"requests": %d, "bad": %d, "p50_us": %.0f, "p99_us": %.0f}',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


# --- the engine that takes no time ------------------------------------------------------------------------------------
def write_instant_model(path: Path) -> Path:
    """An artifact whose logits are 0, 1/1000, 2/1000, ... whatever it is shown."""
    spec = Preprocessing(16, (14, 14), 196, "crop", 256)
    labels = tuple(f"class {index}" for index in range(1000))
    manifest = Manifest("instant", "1", labels, spec, Provenance("benchmarks/host_cost.py"))
    constants = {"row": np.arange(1000, dtype=np.float32)[None] / 1000, "classes": np.array([1000], np.int64)}
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["grid"], ["batch"], start=0, end=1),
            helper.make_node("Concat", ["batch", "classes"], ["shape"], axis=0),
            helper.make_node("Expand", ["row", "shape"], ["logits"]),
            helper.make_node("Cast", ["grid"], ["embedding"], to=TensorProto.FLOAT),
        ],
        "instant",
        [
            helper.make_tensor_value_info("patches", TensorProto.UINT8, ["batch", "patches", spec.patch_dim]),
            helper.make_tensor_value_info("grid", TensorProto.INT64, ["batch", 2]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, path)
    return path


# --- servers ----------------------------------------------------------------------------------------------------------
def empty_app() -> FastAPI:
    """The floor: FastAPI parses the form, and nothing is done with it."""
    app = FastAPI()

    @app.post("/classify")
    async def classify(file: UploadFile) -> dict[str, str]:
        return {"status": "ok"}

    return app


def plain_app() -> FastAPI:
    """What one writes first: everything in one endpoint, in FastAPI's thread pool."""
    app = FastAPI()
    engine = Engine(EngineSettings(model=Path(os.environ[_MODEL_VARIABLE]), engine_threads=1))
    manifest, limits = engine.model.manifest, ImageLimits()

    @app.post("/classify")
    def classify(file: UploadFile) -> dict[str, Any]:
        sequence = preprocess(file.file.read(), manifest.preprocessing, limits)
        logits = engine.run(sequence.patches[None], np.array([sequence.grid]))[0]
        best = top_k(logits, manifest.labels, 5)
        return {"predictions": [{"label": each.label, "score": each.score} for each in best]}

    return app


def _uvicorn(factory: str, port: int) -> list[str]:
    program = [sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.host_cost:{factory}"]
    return [*program, f"--port={port}", "--no-access-log", "--log-level=error"]


def _command(server: str, port: int, model: Path) -> list[str]:
    """The command line of a server."""
    if server in {"empty", "plain"}:
        return _uvicorn(f"{server}_app", port)
    return [str(Path(sys.executable).with_name("patchserve")), "serve", str(model), f"--port={port}"]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    process: "subprocess.Popen[bytes]"
    port: int


@contextmanager
def running(server: str, model: Path, request: "Request", flags: Sequence[str] = ()) -> Iterator[Running]:
    """Start a server, with flags of its own, and wait for its first right answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*_command(server, port, model), *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {_MODEL_VARIABLE: str(model)},
    ) as process:
        try:
            _wait_for_answer(port, request, process)
            yield Running(process, port)
        finally:
            process.terminate()


def _wait_for_answer(port: int, request: "Request", process: "subprocess.Popen[bytes]", timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    message = urllib.request.Request(
        f"http://127.0.0.1:{port}/classify", request.body, {"Content-Type": request.content_type}
    )
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(message, timeout=5):  # noqa: S310 - our own address
                return
        except urllib.error.HTTPError as error:
            raise SystemExit(f"a server answered {error.code}") from None
        except OSError:
            time.sleep(0.1)
    raise SystemExit("a server did not start")


# --- measuring --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Request:
    """One kind of request body."""

    kind: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn of one server."""

    cpu_ms: float  # per answered request
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def requests_of(image: bytes) -> list[Request]:
    """The image as a form and as a raw body."""
    part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
    head = part.encode() + b"Content-Type: image/jpeg\r\n\r\n"
    form = head + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return [
        Request("multipart", f"multipart/form-data; boundary={_BOUNDARY}", form),
        Request("raw", "image/jpeg", image),
    ]


def cpu_seconds(root: int) -> float:
    """User and system time of a process and all its descendants so far."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # the name before may hold anything
        except OSError:
            continue  # ended meanwhile
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        seconds[pid] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(seconds[pid] for pid in family)


def measure(server: Running, script: Path, connections: int, seconds: float) -> Measured:
    """Load one server.

    Raises:
        SystemExit: if any answer was no success.
    """
    before = cpu_seconds(server.process.pid)
    wrk = subprocess.run(
        [
            shutil.which("wrk") or "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "-s",
            script,
            f"http://127.0.0.1:{server.port}/classify",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    used = cpu_seconds(server.process.pid) - before
    report = json.loads(wrk.stderr)
    if report["bad"] or not report["requests"]:
        raise SystemExit(f"{report['bad']} of {report['requests']} requests failed")
    count = report["requests"]
    return Measured(1000 * used / count, count / seconds, report["p50_us"] / 1000, report["p99_us"] / 1000)


def write_script(folder: Path, request: Request) -> Path:
    """What wrk sends: Lua that reads the body from a file, for a literal could not hold every byte."""
    body = folder / f"{request.kind}.body"
    body.write_bytes(request.body)
    script = folder / f"{request.kind}.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "{request.content_type}"\n'
        f'wrk.body = io.open("{body}", "rb"):read("*a")\n{_REPORT}'
    )
    return script


def command(
    server: Annotated[list[str] | None, typer.Option(help="Servers to compare; default all.")] = None,
    connections: Annotated[list[int] | None, typer.Option(min=1, help="Requests in flight; default 1, 8, 32.")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="Of each turn, and of the warm-up.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every server.")] = 3,
    raw: Annotated[bool, typer.Option(help="Also raw bodies, where a server takes them.")] = True,
) -> None:
    """CPU-milliseconds per request, requests per second and latency, medians of interleaved turns."""
    servers = server or ["empty", "plain", "patchserve"]
    requests = requests_of(make_jpegs(224, 224, 1)[0])
    adopt_orphans()
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = write_instant_model(folder / "instant.onnx")
        scripts = {request.kind: write_script(folder, request) for request in requests}
        started = {each: stack.enter_context(running(each, model, requests[0])) for each in servers}
        for each in started.values():  # caches, imports and rates settle
            measure(each, scripts["multipart"], 8, seconds)
        print(f"JPEG 224x224 of {len(requests[1].body)} bytes, {os.cpu_count()} cores, medians of {rounds}")
        print("| server | body | connections | CPU-ms per request | requests/s | p50 ms | p99 ms |")
        print("|---|---|---|---|---|---|---|")
        for count in connections or [1, 8, 32]:
            _compare(started, scripts, count, seconds, rounds, raw=raw)


def _compare(
    started: dict[str, Running], scripts: dict[str, Path], connections: int, seconds: int, rounds: int, *, raw: bool
) -> None:
    cells = [(each, "multipart") for each in started]
    cells += [(each, "raw") for each in started if raw and each == "patchserve"]
    turns: dict[tuple[str, str], list[Measured]] = {cell: [] for cell in cells}
    for _ in range(rounds):
        for cell in cells:
            turns[cell].append(measure(started[cell[0]], scripts[cell[1]], connections, seconds))
    for (each, kind), all_of in turns.items():
        middle = [
            statistics.median(getattr(one, name) for one in all_of)
            for name in ("cpu_ms", "requests_per_s", "p50_ms", "p99_ms")
        ]
        cpu_ms, rate, p50_ms, p99_ms = middle
        print(
            f"| {each} | {kind} | {connections} | {cpu_ms:.3f} | {rate:.0f} | {p50_ms:.2f} | {p99_ms:.2f} |", flush=True
        )


def adopt_orphans() -> None:
    """Make daemons that a server starts stay descendants, so that their time is counted (prctl(2), Linux)."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


if __name__ == "__main__":
    typer.run(command)
