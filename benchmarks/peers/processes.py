"""One server at a time: started, watched and stopped with everything it starts, its processor time read from /proc.

Servers start daemons whose parents leave (Ray, TorchServe). The benchmark makes itself their new parent (the "child
subreaper" of prctl(2)), so that all of them stay its descendants and can be counted and stopped.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import httpx

Process: TypeAlias = "subprocess.Popen[bytes]"

_PR_SET_CHILD_SUBREAPER = 36
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_IDLE_SHARE = 0.5  # of one core: some servers poll all the time, and a backlog takes more than one


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cpu_s() -> float:
    """User and system seconds of everything below this process, ended children included."""
    return sum(_ticks(fields) for _, fields in _descendants()) / _TICKS_PER_S


@contextmanager
def server(command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> Iterator[Process]:
    """Run `command` in `folder` until the block ends, then end it and all that it started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            _stop(process)


def wait_ready(process: Process, url: str, timeout_s: float) -> str:
    """Poll until the answer is 200; returns nothing then, and otherwise why there is none."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if process.poll() is not None:
            return f"the server ended with status {process.returncode}"
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return ""
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    return f"the server was not ready within {timeout_s:.0f} s"


def wait_idle(timeout_s: float, window_s: float = 0.4) -> bool:
    """Wait until cut requests have been worked off; says whether that happened in time."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        before = cpu_s()
        time.sleep(window_s)
        if cpu_s() - before < _IDLE_SHARE * window_s:
            return True
    return False


def _stop(process: Process) -> None:
    """SIGTERM to the server, ten seconds, then SIGKILL to all that is left."""
    process.terminate()
    until = time.monotonic() + 10
    while time.monotonic() < until and list(_descendants()):
        _reap(process)
        time.sleep(0.1)
    while left := [pid for pid, _ in _descendants()]:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
        _reap(process)


def _reap(process: Process) -> None:
    """Collect ended children, adopted ones too."""
    process.poll()
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _descendants() -> Iterator[tuple[int, list[str]]]:
    """Process id and the fields of /proc/PID/stat behind the name, for all below this process."""
    stats = dict(_stats())
    family = {os.getpid()}
    grown = True
    while grown:
        children = {pid for pid, fields in stats.items() if int(fields[1]) in family} - family
        family |= children
        grown = bool(children)
    for pid in family - {os.getpid()}:
        yield pid, stats[pid]


def _stats() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:  # it has ended
                continue
            yield int(entry.name), text.rpartition(")")[2].split()


def _ticks(fields: Sequence[str]) -> int:
    """utime, stime, cutime and cstime of proc(5)."""
    return sum(map(int, fields[11:15]))
