"""The servers: how each is started, reached and asked. How each is configured, and why, is in its own file."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.peers.load import Form
from benchmarks.peers.servers.classifier import SMALL_BATCH_PATCHES

OURS = "patchserve"
_LARGE = 2048


def _first(document: Any) -> int:
    return int(document["predictions"][0]["index"])


@dataclass(frozen=True, slots=True)
class Server:
    """One server.

    Attributes:
        name: as in the tables; also of its environment and of its requirements file.
        form: how a JPEG is sent.
        path: of the route, with the query.
        ready: path that answers 200 when the model is loaded.
        command: a program of its environment, with `{model}` and `{port}`.
        variables: of its environment, with `{port}`.
        workers, threads: processes that run the model, and threads of one session.
        batch_patches: most patches of a batch; the better of two for each server, see the README.
        weights: what `{model}` is: the artifact, or for PyTorch the checkpoint.
        best_class: index of the best class in its reply.
    """

    name: str
    form: Form
    path: str
    ready: str
    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    workers: int = 2
    threads: int = 2
    batch_patches: int = SMALL_BATCH_PATCHES
    weights: Literal["artifact", "checkpoint"] = "artifact"
    best_class: Callable[[Any], int] = _first


def _module(name: str) -> tuple[str, ...]:
    return ("python", "-m", f"benchmarks.peers.servers.{name}")


_PATCHSERVE = Server(
    OURS,
    "raw",
    # The default deadline of two seconds is shorter than what 128 requests to a base-size model take on two cores.
    "/classify?timeout_ms=30000",
    "/readyz",
    ("patchserve", "serve", "{model}", "--port", "{port}", "--no-brown-out", "--replicas", "0"),
    best_class=lambda document: _first(document["results"][0]),
)
_FASTAPI = Server("fastapi", "multipart", "/classify", "/docs", _module("fastapi_server"), threads=1)
_FASTAPI_TORCH = Server(
    "fastapi-torch", "multipart", "/classify", "/docs", _module("fastapi_torch_server"), weights="checkpoint"
)
_LITSERVE = Server(
    "litserve", "multipart", "/predict", "/health", _module("litserve_server"), threads=1, batch_patches=_LARGE
)
_MOSEC = Server(
    "mosec",
    "raw",
    "/inference",
    "/",
    _module("mosec_server"),
    {"MOSEC_ADDRESS": "127.0.0.1", "MOSEC_PORT": "{port}", "MOSEC_TIMEOUT": "120000", "MOSEC_LOG_LEVEL": "warning"},
    threads=1,
)
_BENTOML = Server(
    "bentoml",
    "multipart",
    "/classify",
    "/readyz",
    ("bentoml", "serve", "benchmarks.peers.servers.bentoml_server:Service", "--host", "127.0.0.1", "--port", "{port}"),
    {"BENTOML_DO_NOT_TRACK": "True"},
    threads=1,
    batch_patches=_LARGE,
    best_class=lambda document: _first(document[0]),
)
_RAY = Server(
    "ray",
    "raw",
    "/classify",
    "/-/healthz",
    _module("ray_server"),
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    },
    threads=1,
)
_MLSERVER = Server(
    "mlserver",
    "v2",
    "/v2/models/peer/infer",
    "/v2/models/peer/ready",
    _module("mlserver_server"),
    batch_patches=_LARGE,
    best_class=lambda document: _first(json.loads(document["outputs"][0]["data"][0])),
)
_TORCHSERVE = Server("torchserve", "raw", "/predictions/peer", "/ping", _module("torchserve_server"), threads=1)

SERVERS = {
    server.name: server
    for server in (
        _PATCHSERVE, _MOSEC, _LITSERVE, _BENTOML, _RAY, _FASTAPI, _FASTAPI_TORCH, _MLSERVER, _TORCHSERVE,
    )
}  # fmt: skip
