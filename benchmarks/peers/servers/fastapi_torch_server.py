"""Naive FastAPI with PyTorch: the hand-rolled server, eager float32; multipart upload, no batching.

The usual tutorial, with FastAPI for Flask (https://docs.pytorch.org/tutorials/intermediate/flask_rest_api_tutorial.html):
load the model, decode, `torch.inference_mode()`, answer. One process with PyTorch's own threads on both cores; the
endpoint is `def`, so requests run in FastAPI's thread pool. Same weights as the artifact, from the checkpoint.
"""

from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.peers.servers.classifier import PeerSettings, reply, stack
from model.checkpoints.native import load
from model.headers import ImageLimits
from model.preprocess import preprocess


def create_app(checkpoint: Path) -> FastAPI:
    """The application."""
    model, description = load(checkpoint)
    limits = ImageLimits()
    app = FastAPI()

    @app.post("/classify")
    def classify(file: UploadFile) -> dict[str, Any]:
        image = preprocess(file.file.read(), model.preprocessing, limits)
        patches, grid = stack([image])
        with torch.inference_mode():
            logits = model(torch.from_numpy(patches), torch.from_numpy(grid))[0]
        return reply(logits[0].numpy(), description.labels)

    return app


def main() -> None:
    """Serve."""
    settings = PeerSettings.from_environment()
    torch.set_num_threads(settings.threads)
    uvicorn.run(create_app(settings.model), host="127.0.0.1", port=settings.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
