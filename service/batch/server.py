"""The process that engines are forked from (`multiprocessing`'s forkserver): it has no threads and imports once."""

import multiprocessing
import signal
import tempfile
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from typing import Final

METHOD: Final = "forkserver"
_IMPORTED = ["__main__", "service.batch.processes"]
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def can_start() -> bool:
    """Whether this system has it, which Windows has not, and a folder for its socket."""
    with suppress(OSError):
        return METHOD in multiprocessing.get_all_start_methods() and bool(tempfile.gettempdir())
    return False


def start_server() -> None:
    """Start it, or do nothing if it is there; it begins to import what engines need.

    It and the engines never see Ctrl-C or SIGTERM, which a terminal or a service manager sends to all processes: the
    command hears of it and gives out no more parts.
    """
    multiprocessing.set_forkserver_preload(_IMPORTED)
    resource_tracker.ensure_running()  # else the server would start it, and that unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
