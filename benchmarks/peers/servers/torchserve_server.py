"""TorchServe: a custom handler with its batching, `PEER_WORKERS` workers; raw JPEG bodies.

As its docs recommend: `batchSize`, `maxBatchDelay`, `minWorkers` in the model's configuration
(https://docs.pytorch.org/serve/batch_inference_with_ts.html), a handler with `initialize` and `handle`
(https://docs.pytorch.org/serve/custom_service.html), an ONNX model in onnxruntime, workers times threads no more than
twice the cores (https://docs.pytorch.org/serve/performance_guide.html). Its project is archived. The queue is raised
from 100 to 1,000 requests, the timeout to 120 s; only warnings are logged. Token authorisation off.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks.peers.servers.classifier import Classifier, PeerSettings


class Handler:
    """JPEG to reply, in batches."""

    def initialize(self, context: Any) -> None:
        """Open the model in each worker process."""
        self._classifier = Classifier(PeerSettings.from_environment())

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        """One batch of request bodies."""
        return self._classifier.classify_files([bytes(row.get("body") or row["data"]) for row in data])


_LOGGING = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration><Appenders><Console name="console"/></Appenders>
<Loggers><Root level="warn"><AppenderRef ref="console"/></Root></Loggers></Configuration>
"""


def write_store(folder: Path, settings: PeerSettings) -> None:
    """The archive and the configuration that `torchserve --start` reads."""
    (folder / "model.yaml").write_text(
        f"minWorkers: {settings.workers}\nmaxWorkers: {settings.workers}\nbatchSize: {settings.max_batch}\n"
        "maxBatchDelay: 1\nresponseTimeout: 120\njobQueueSize: 1000\n"
    )
    archiver = str(Path(sys.executable).with_name("torch-model-archiver"))
    command = [archiver, "--model-name", "peer", "--version", "1", "--handler", __file__]
    options = ["--config-file", str(folder / "model.yaml"), "--export-path", str(folder)]
    subprocess.run([*command, *options], check=True)
    addresses = {
        name: f"http://127.0.0.1:{settings.port + offset}"
        for offset, name in enumerate(("inference_address", "management_address", "metrics_address"))
    }
    options_of_server = {
        "disable_token_authorization": "true",
        "install_py_dep_per_model": "false",
        "default_response_timeout": "120",
        "job_queue_size": "1000",
        "grpc_inference_port": str(settings.port + 3),
        "grpc_management_port": str(settings.port + 4),
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
    }
    lines = [f"{name}={value}" for name, value in (addresses | options_of_server).items()]
    (folder / "config.properties").write_text("\n".join(lines) + "\n")
    (folder / "log4j2.xml").write_text(_LOGGING)


def main() -> None:
    """Write the archive and become `torchserve --start --foreground`."""
    folder = Path(mkdtemp(prefix="torchserve-"))
    write_store(folder, PeerSettings.from_environment())
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["LOG_LOCATION"] = os.environ["METRICS_LOCATION"] = str(folder)
    program = str(Path(sys.executable).with_name("torchserve"))
    arguments = ["--start", "--foreground", "--ncs", "--model-store", str(folder), "--models", "peer=peer.mar"]
    arguments += ["--ts-config", str(folder / "config.properties"), "--log-config", str(folder / "log4j2.xml")]
    os.execv(program, [program, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
