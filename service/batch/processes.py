"""The same run in several processes of this machine, each with an engine of its own.

    command ── server ── engine 1    takes a part, reads its images, classifies them, writes the part, takes the next
                    └── engine 2    ...

Threads of one process wait for its interpreter lock, across cores; with a small model that is a fifth of the speed.
Through the pipes go numbers of parts and counts of images. The server (`multiprocessing`'s forkserver) imports once
what all engines need, while the command lists the images.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from enum import Enum, auto
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from model.manifest import METADATA_KEY, Manifest, ManifestError
from service.artifacts import bundled_model
from service.batch.inventory import Inventory
from service.batch.journal import Journal
from service.batch.server import METHOD, start_server
from service.batch.shares import Shares
from service.batch.worker import Finished, Tell, Wanted, go_on, ignore, open_worker, settings_of_one
from service.cores import usable_cores
from service.engine import Model
from service.errors import BatchError, StartError
from service.loaded import open_engine
from service.onnx_file import metadata_of
from service.settings import Settings

_END_S = 5.0  # of a process whose pipe has come to its end


class _Word(Enum):
    """What an engine says beside counts (images, errors), finished parts, and a text about why it cannot go on."""

    NEXT = auto()  # which part?
    DONE = auto()


class Processes:
    """Classifies parts in processes of their own.

    Attributes:
        model: that each of them has.

    Args:
        settings: limits of images and batches; cores are divided.
        wanted: of each image.
        journal: says where a part is written.
        number: of processes, at most.

    Raises:
        StartError: if the model is none.
    """

    def __init__(self, settings: Settings, wanted: Wanted, journal: Journal, number: int) -> None:
        self._settings, self._wanted, self._journal, self._number = settings, wanted, journal, number
        self.model = _look_at_model(settings)

    def run(
        self, inventory: Inventory, parts: Sequence[int], stopped: Callable[[], bool] = go_on, tell: Tell = ignore
    ) -> Iterator[Finished]:
        """As `service.batch.worker.PartWorker.run`, in no order; what fills one process alone is done in this one.

        Raises:
            StartError: if the model is at fault.
            BatchError: if the disk is full or a process dies.
        """
        number = min(self._number, len(parts))
        if number < 2:
            yield from self._run_here(inventory, parts, stopped, tell)
            return
        settings = settings_of_one(self._settings, self.model, number, max(1, usable_cores() // number))
        with _started(number, settings, self._wanted, self._journal, inventory) as engines:
            yield from _hand_out(engines, Shares(parts, number), stopped, tell)

    def _run_here(
        self, inventory: Inventory, parts: Sequence[int], stopped: Callable[[], bool], tell: Tell
    ) -> Iterator[Finished]:
        if parts:
            with closing(open_worker(self._settings, self._wanted, self._journal)) as worker:
                yield from worker.run(inventory, parts, stopped, tell)


# --- this side --------------------------------------------------------------------------------------------------------
@contextmanager
def _started(number: int, *arguments: Any) -> Iterator[dict[Connection, BaseProcess]]:
    """Engines that are starting, by the pipe to each; none is left at the end, whatever it is."""
    start_server()
    engines: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(number):
            engines.update([_start(*arguments)])
        yield dict(engines)
    finally:
        for line, process in engines.items():
            if process.is_alive():
                process.kill()
            process.join()
            line.close()


def _start(*arguments: Any) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context(METHOD)
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_engine, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _hand_out(
    engines: dict[Connection, BaseProcess], shares: Shares, stopped: Callable[[], bool], tell: Tell
) -> Iterator[Finished]:
    """Give parts to whoever asks, until nobody does."""
    places = {line: place for place, line in enumerate(engines)}
    while places:
        for line in list(wait(list(places))):
            assert isinstance(line, Connection)  # noqa: S101 - nothing else was given
            said = _hear(line, engines[line])
            if isinstance(said, Finished):
                yield said
            elif isinstance(said, tuple):
                tell(*said)
            elif said is _Word.NEXT:
                with suppress(OSError):  # it has just died: the next word is its end
                    line.send(None if stopped() else shares.take(places[line]))
            else:
                del places[line]


def _hear(line: Connection, process: BaseProcess) -> Finished | tuple[int, int] | _Word:
    try:
        said: Finished | tuple[int, int] | _Word | str = line.recv()
    except (EOFError, OSError):
        process.join(_END_S)
        raise BatchError(
            f"a process of this run has ended ({_cause(process.exitcode)}): the same command goes on from the last "
            "finished part, with --processes 1 in less memory"
        ) from None
    if isinstance(said, str):
        raise BatchError(said)
    return said


def _cause(status: int | None) -> str:
    if status is None or status >= 0:
        return f"status {status}"
    return f"{signal.Signals(-status).name}; out of memory?" if status == -signal.SIGKILL else f"signal {-status}"


def _look_at_model(settings: Settings) -> Model:
    """Without an engine, which this process does not need."""
    path = settings.model or bundled_model()
    try:
        content = path.read_bytes()
        manifest = Manifest.from_json(metadata_of(content, METADATA_KEY) or "")
    except (OSError, ManifestError):
        return open_engine(settings).model  # says what is wrong
    return Model(manifest, f"sha256:{hashlib.sha256(content).hexdigest()}", settings.provider)


# --- the side of an engine --------------------------------------------------------------------------------------------
def _run_engine(line: Connection, settings: Settings, wanted: Wanted, journal: Journal, inventory: Inventory) -> None:
    threading.Thread(target=_end_with_command, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the command is gone
        try:
            worker = open_worker(settings, wanted, journal)
            for finished in worker.run(inventory, iter(partial(_ask, line), None), tell=partial(_tell, line)):
                line.send(finished)
            line.send(_Word.DONE)
        except StartError as error:
            line.send(str(error))
        line.recv()  # the command ends this process


def _tell(line: Connection, images: int, errors: int) -> None:
    line.send((images, errors))


def _ask(line: Connection) -> int | None:
    line.send(_Word.NEXT)
    part: int | None = line.recv()
    return part


def _end_with_command() -> None:
    """At once: the same command may be started again, and would write the same parts."""
    command = multiprocessing.parent_process()
    assert command is not None  # noqa: S101 - this is a child
    wait([command.sentinel])
    os._exit(1)
