"""`patchserve serve` with an engine that fails on command, for tests that need a bad moment.

    python faulty_engine.py MODEL COMMANDS FLAG...

`COMMANDS` is a file. Its text, when there is one, is carried out at the next run or start of the engine: `die` kills
the process, `hang` stops it in the middle of a run, `lose` loses its device, `lie` makes this process answer wrongly
from now on; all empty the file first. `die always` does not, nor does `slow SECONDS`, which every run takes longer as
long as it stands there. By default there are two HTTP processes and one engine process; with `--http-workers=1` all is
one process.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from service.engine import Engine
from service.errors import DeviceLostError
from service.processes.entry import serve_with_processes
from service.server import serve
from service.settings import Settings, read_settings


class FaultyEngine:
    """A real engine, and the commands."""

    def __init__(self, engine: Any, commands: Path) -> None:
        self._engine = engine
        self._commands = commands
        self._lies = False
        self.model = engine.model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, *inputs: Any, **how: Any) -> Any:
        self._obey()
        return self._told(self._engine.run(*inputs, **how))

    def infer(self, *inputs: Any, **how: Any) -> Any:
        self._obey()
        answers = self._engine.infer(*inputs, **how)
        return answers._replace(logits=self._told(answers.logits))

    def _obey(self) -> None:
        command = self._commands.read_text().strip()
        if command.startswith("slow "):
            time.sleep(float(command.removeprefix("slow ")))
        elif command and command != "die always":
            self._commands.write_text("")
        if command.startswith("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if command == "hang":
            time.sleep(1000)
        if command == "lose":
            raise DeviceLostError("CUDA failure 700: an illegal memory access was encountered")
        self._lies |= command == "lie"

    def _told(self, logits: Any) -> Any:
        return logits * np.arange(logits.shape[1], dtype=np.float32) if self._lies else logits


def main() -> None:
    model, commands, *flags = sys.argv[1:]
    settings = read_settings([model, *flags])
    if settings.http_workers == 1:
        serve(settings, FaultyEngine(Engine(settings), Path(commands)))  # type: ignore[arg-type]

    def open_faulty(settings: Settings) -> Any:
        from service.loaded import open_engine

        return FaultyEngine(open_engine(settings), Path(commands))

    serve_with_processes(settings, 2, open_faulty)


if __name__ == "__main__":
    main()
