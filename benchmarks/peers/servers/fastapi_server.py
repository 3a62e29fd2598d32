"""Plain FastAPI with onnxruntime: the server that one writes in an afternoon, done well; multipart upload, no batching.

As its docs recommend: `UploadFile`, a `def` endpoint (which runs in the thread pool) and one worker process per core
(https://fastapi.tiangolo.com/deployment/server-workers/). FastAPI has no batching of its own. The thread pool has
as many threads as there are cores (https://www.starlette.dev/threadpool/): 40, the default, that all decode and infer
at once only take the cores from each other.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.peers.servers.classifier import Classifier, PeerSettings

_THREADS = 2  # of one process; with one, a process that got most of the connections leaves a core idle


def create_app() -> FastAPI:
    """One worker's application."""
    classifier = Classifier(PeerSettings.from_environment())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/classify")
    def classify(file: UploadFile) -> dict[str, Any]:
        return classifier.classify_files([file.file.read()])[0]

    return app


def main() -> None:
    """Serve."""
    settings = PeerSettings.from_environment()
    uvicorn.run(
        f"{__spec__.name}:create_app",
        factory=True,
        host="127.0.0.1",
        port=settings.port,
        workers=settings.workers,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
