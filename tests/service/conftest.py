from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tiny_artifact import write_artifact

from service.app import create_app
from service.engine import Engine
from service.settings import Settings

Serving = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def serving(artifact: Path) -> Serving:
    """A client of an app in this process: `async with serving(max_files=1) as client`."""

    @asynccontextmanager
    async def serve(engine: Engine | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(Settings(**{"model": artifact, "log_level": "error"} | settings), engine=engine)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as client,
        ):
            yield client

    return serve


def picture(colour: tuple[int, int, int] = (220, 20, 20), size: tuple[int, int] = (28, 28), kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


@pytest.fixture
def red() -> bytes:
    return picture((220, 20, 20))


@pytest.fixture
def blue() -> bytes:
    return picture((20, 20, 220), (60, 20))
