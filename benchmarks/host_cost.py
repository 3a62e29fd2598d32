"""What a request costs the host: CPU-milliseconds of all server processes, with an engine that takes no time.

    python -m benchmarks.host_cost --environments FOLDER
    python -m benchmarks.host_cost --server patchserve --server patchserve-raw --connections 1

The engine is an ONNX file with the manifest of a ViT-Ti/16 (224x224, patches of 16, 1,000 classes) whose graph answers
constants, so what is left is all that surrounds an engine: HTTP, multipart, JPEG, resizing, patches, queue, reply. wrk
posts 224x224 JPEGs. User and system time of the server and all that it started, from /proc before and after, is divided
by the answered requests. The servers take turns for `--rounds` rounds, each started anew, warmed up and held to right
answers; medians are printed. All but the first are those of benchmarks/peers, whose README says how to install them:

- empty: FastAPI with one `UploadFile` and nothing behind it, the floor of that framework
- patchserve: `patchserve serve`, multipart; patchserve-raw: the image as the body. With one lane, as in front of a GPU:
  several would halve the batches of an engine that has nothing to compute
- patchserve-process: as patchserve, each image decoded in a process that can be killed
- patchserve-traced-10, patchserve-traced-100: as patchserve-raw, with traces of so many percent of the requests, sent
  to a collector in this program that counts spans and drops them
- fastapi: an endpoint that calls the same preprocessing and ONNX Runtime; mosec, litserve, bentoml, ray: likewise

Linux only; wrk must be installed. Recorded runs are in docs/performance/host-cost.md.
"""

import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import onnx
import typer
from fastapi import FastAPI, UploadFile
from onnx import TensorProto, helper, numpy_helper

from benchmarks.collector import collecting
from benchmarks.images import make_jpegs
from benchmarks.peers import processes
from benchmarks.peers.catalog import OURS, SERVERS, Server
from benchmarks.peers.results import Cell, Result
from benchmarks.peers.started import Place
from benchmarks.peers.visit import Task, visit
from model.manifest import METADATA_KEY, Manifest, Preprocessing, Provenance

_CLASSES = 1000


# --- the engine that takes no time ------------------------------------------------------------------------------------
def write_instant_model(path: Path) -> Path:
    """An artifact whose logits are 0, 1/1000, 2/1000, ... whatever it is shown."""
    spec = Preprocessing(16, (14, 14), 196, "crop", 256)
    labels = tuple(f"class {index}" for index in range(_CLASSES))
    manifest = Manifest("instant", "1", labels, spec, Provenance("benchmarks/host_cost.py"))
    constants = {
        "row": np.arange(_CLASSES, dtype=np.float32)[None] / _CLASSES,
        "classes": np.array([_CLASSES], np.int64),
    }
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
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", _CLASSES]),
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


# Started by programs of this environment, as `patchserve` is.
_EMPTY = Server(
    OURS,
    "multipart",
    "/classify",
    "/docs",
    ("uvicorn", "--factory", "benchmarks.host_cost:empty_app", "--port={port}", "--no-access-log", "--log-level=error"),
    best_class=lambda _: _CLASSES - 1,
)
_OURS = replace(SERVERS[OURS], command=(*SERVERS[OURS].command, "--engine-lanes", "1"))
_BATCH_PATCHES = 2048  # as patchserve with one lane
_COLLECTOR_PORT = 14318


def _traced(share: float) -> Server:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{_COLLECTOR_PORT}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(share),
    }
    return replace(_OURS, command=(*_OURS.command, "--tracing"), variables=variables)


_PEERS = ("fastapi", "mosec", "litserve", "bentoml", "ray")
_CANDIDATES: Mapping[str, Server] = {
    "empty": _EMPTY,
    "patchserve": replace(_OURS, form="multipart"),
    "patchserve-raw": _OURS,
    "patchserve-process": replace(_OURS, command=(*_OURS.command, "--decode-isolation", "process"), form="multipart"),
    "patchserve-traced-10": _traced(0.1),
    "patchserve-traced-100": _traced(1.0),
    **{name: replace(SERVERS[name], batch_patches=_BATCH_PATCHES) for name in _PEERS},
}


# --- measuring --------------------------------------------------------------------------------------------------------
def command(
    environments: Annotated[Path, typer.Option(help="Folder with one virtual environment per peer.")] = Path(),
    server: Annotated[list[str] | None, typer.Option(help="Servers to compare; default all.")] = None,
    connections: Annotated[list[int] | None, typer.Option(min=1, help="Requests in flight; default 1, 8, 32.")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="Of each measurement.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every server.")] = 3,
) -> None:
    """CPU-milliseconds per request, requests per second and latency, medians of interleaved turns."""
    images = make_jpegs(224, 224)
    task = Task(images, [_CLASSES - 1] * len(images), patches=196)
    counts = connections or [1, 8, 32]
    turns: dict[tuple[str, int], list[Result]] = {}
    processes.adopt_orphans()
    with TemporaryDirectory() as folder, collecting(_COLLECTOR_PORT) as spans:
        model = write_instant_model(Path(folder) / "instant.onnx")
        place = Place(environments.absolute(), Path(folder))
        for turn in range(1, rounds + 1):
            for name in server or _CANDIDATES:
                cells = [(Cell("instant", "224", count, name, turn), float(seconds)) for count in counts]
                for result in visit(_CANDIDATES[name], model, {"224": task}, cells, place):
                    turns.setdefault((name, result.cell.connections), []).append(result)
    print(f"{len(spans)} exports of {sum(spans)} spans")
    print("| server | connections | CPU-ms per request | of each turn | requests/s | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|")
    for count in counts:
        for name in server or _CANDIDATES:
            print(_row(name, count, turns[name, count]))


def _row(name: str, connections: int, turns: list[Result]) -> str:
    """One line of the table; a turn without a figure shows why."""
    if errors := [turn.error for turn in turns if turn.error]:
        return f"| {name} | {connections} | {errors[0]} | | | | |"
    cpu_ms = [turn.cpu_ms for turn in turns]
    rate, p50_ms, p99_ms = (
        statistics.median(values)
        for values in zip(*((turn.requests_per_s, turn.p50_ms, turn.p99_ms) for turn in turns), strict=True)
    )
    each = ", ".join(f"{value:.2f}" for value in cpu_ms)
    middle = f"{statistics.median(cpu_ms):.2f}"
    return f"| {name} | {connections} | {middle} | {each} | {rate:.0f} | {p50_ms:.2f} | {p99_ms:.2f} |"


if __name__ == "__main__":
    typer.run(command)
