"""What has to be done before the framework is imported and the first process is forked."""

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from service.cores import usable_cores
from service.errors import StartError
from service.processes.shares import check_replicas
from service.settings import Settings

if TYPE_CHECKING:
    from service.loaded import OpenEngine


def serve_with_processes(settings: Settings, http_processes: int, open_engine: "OpenEngine | None" = None) -> NoReturn:
    """Serve with several HTTP processes and one engine process until told to stop; does not return.

    Args:
        settings: everything that can be chosen.
        http_processes: how many accept and decode.
        open_engine: what the engine process opens; by default the model of the settings.

    Raises:
        StartError: if the service cannot start, or this system cannot do it.
    """
    _need_linux("--http-workers")
    with _ready_to_fork():
        from service import loaded  # noqa: PLC0415 - its imports read the environment
        from service.processes.supervisor import Supervisor  # noqa: PLC0415

        shares = {
            "decode_threads": settings.decode_threads or math.ceil(usable_cores() / http_processes),
            "max_pixels_in_flight": math.ceil(settings.max_pixels_in_flight / http_processes),
        }
        settings = settings.model_copy(update=shares)
        sys.exit(Supervisor(settings, http_processes, open_engine or loaded.open_engine).run())


def serve_with_replicas(settings: Settings) -> NoReturn:
    """Serve with several processes, each of which is a whole service, until told to stop; does not return.

    Args:
        settings: everything that can be chosen.

    Raises:
        StartError: if the service cannot start, or this system cannot do it.
    """
    _need_linux("--replicas")
    check_replicas(settings, usable_cores())
    with _ready_to_fork():
        from service.processes.replicas import Replicas  # noqa: PLC0415 - its imports read the environment

        sys.exit(Replicas(settings).run())


def _need_linux(flag: str) -> None:
    if sys.platform != "linux":
        raise StartError(f"{flag} needs Linux, where processes can share a port: leave it at 1")


@contextmanager
def _ready_to_fork() -> Iterator[None]:
    folder = _metrics_folder()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # read when prometheus-client is imported
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy would start threads here, and this process forks
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _metrics_folder() -> Path:
    """In memory if possible: the files are written at every request."""
    for place in (Path("/dev/shm"), Path(tempfile.gettempdir())):  # noqa: S108 - a new folder of a random name is made
        if os.access(place, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="patchserve-", dir=place))
    raise StartError("several processes need a writable /dev/shm or temporary folder for their metrics")
