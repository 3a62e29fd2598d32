"""How much memory the service has: of all its processes, as the kernel counts it."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def resident_bytes(leader: int | None = None, proc: Path = _PROC) -> float:
    """Resident memory of a process and everything below it, bytes. What processes share counts in each of them.

    Args:
        leader: its number; by default the first of this process group, of which all processes of a service are.
        proc: where the kernel shows processes.

    Returns:
        NaN where the kernel does not show it.
    """
    if not (proc / "self" / "statm").exists():
        return math.nan
    pages = sum(_resident_pages(proc / pid) for pid in _family(str(leader or os.getpgrp()), proc))
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _family(pid: str, proc: Path) -> Iterator[str]:
    yield pid
    for children in (proc / pid / "task").glob("*/children"):
        for child in _read(children).split():
            yield from _family(child, proc)


def _resident_pages(process: Path) -> int:
    fields = _read(process / "statm").split()
    return int(fields[1]) if fields else 0


def _read(path: Path) -> str:
    """What a file of the kernel says; nothing if its process has just ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
