"""A new model file is tried in a process of its own before the serving process opens it.

A model file is code that the loader of ONNX Runtime interprets, and a broken one has crashed it before. So a child
loads it, checks it, runs it and ends; whether it ends well is all that counts. It costs the start of an interpreter,
and the memory of the model once more for as long as it takes. It goes behind everything else that wants a core.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from service.errors import StartError
from service.settings import Settings

_NICENESS = 10  # of 0 to 19


def try_model(settings: Settings) -> None:
    """Load the model of the settings in a child process; returns when the child has ended.

    Raises:
        StartError: if the model cannot serve: the loader crashed, took too long, or said why.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "service.trial"],
            input=settings.model_dump_json(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=settings.reload_timeout_s,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StartError(
            f"the model {settings.model} was not loaded within {settings.reload_timeout_s:g} seconds"
        ) from None
    except OSError as error:
        raise StartError(f"no process can be started to try the model {settings.model}: {error.strerror}") from None
    if child.returncode:
        raise StartError(_reason(child.stdout) or f"the model {settings.model} {_end(child.returncode)}")


def _environment() -> dict[str, str]:
    """Ours, without the settings, which are sent, and without metrics, which would be nobody's."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PATCHSERVE_", "PROMETHEUS_"))}
    # The child finds its modules where this process has, and nothing in the folder that this process happens to be in.
    return own | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


def _reason(output: str) -> str:
    try:
        return str(json.loads(output)["reason"])
    except (ValueError, KeyError, TypeError):
        return ""


def _end(status: int) -> str:
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"ended the process that tried to load it, {how}"


def main() -> int:
    """The child: settings on standard input; says on standard output why not, if not."""
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_NICENESS)
    # After the niceness, so that the imports are behind everything else too.
    from service.loaded import Loader, open_engine  # noqa: PLC0415
    from service.scheduler import SchedulerObserver  # noqa: PLC0415

    settings = Settings.model_validate_json(sys.stdin.read())
    try:
        loaded = Loader(open_engine, SchedulerObserver(), time.monotonic)(settings)
    except StartError as error:
        print(json.dumps({"reason": str(error)}))  # noqa: T201
        return 1
    loaded.discard()
    return 0


if __name__ == "__main__":
    sys.exit(main())
