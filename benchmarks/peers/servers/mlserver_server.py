"""MLServer: a custom runtime with adaptive batching and `PEER_WORKERS` parallel workers; V2 JSON with base64.

As its docs recommend: `max_batch_size` and `max_batch_time` in the model's settings
(https://docs.seldon.ai/mlserver/user-guide/adaptive-batching), `parallel_workers` as many as the cores allow
(https://docs.seldon.ai/mlserver/user-guide/parallel-inference), a runtime that inherits from `MLModel`
(https://docs.seldon.ai/mlserver/user-guide/custom). Its REST API takes no raw bytes: an image is a BYTES input in
base64. Access log off (`debug` false), metrics off, gRPC on a port of its own.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from tempfile import mkdtemp

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.servers.classifier import Classifier, PeerSettings


class Runtime(MLModel):  # type: ignore[misc]
    """JPEG to reply, in batches."""

    async def load(self) -> bool:
        """Open the model in each worker process."""
        self._classifier = Classifier(PeerSettings.from_environment())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One batch, which MLServer has merged into one request."""
        files = Base64Codec.decode_input(payload.inputs[0])
        replies = await asyncio.to_thread(self._classifier.classify_files, files)
        output = StringCodec.encode_output("replies", [json.dumps(reply) for reply in replies])
        return InferenceResponse(model_name=self.name, outputs=[output])


def write_settings(folder: Path, settings: PeerSettings) -> None:
    """The two files that `mlserver start FOLDER` reads."""
    server = {
        "host": "127.0.0.1",
        "http_port": settings.port,
        "grpc_port": settings.port + 1,
        "metrics_endpoint": None,
        "parallel_workers": settings.workers,
        "debug": False,
        "gzip_enabled": False,
    }
    model = {
        "name": "peer",
        "implementation": "benchmarks.peers.servers.mlserver_server.Runtime",
        "max_batch_size": settings.max_batch,
        "max_batch_time": 0.001,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))


def main() -> None:
    """Write the settings and become `mlserver start`."""
    folder = Path(mkdtemp(prefix="mlserver-"))
    write_settings(folder, PeerSettings.from_environment())
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])  # noqa: S606


if __name__ == "__main__":
    main()
