"""How many cores this process may use: `os.cpu_count` counts those of the machine, whatever the container allows.

A container's limit is not a set of cores but time on all of them (`--cpus 2`): each period of usually 100 ms the
kernel lets its threads run for a quota, then stops all of them until the next. More threads than the quota pays for
stall a run in its middle, so a part of a core does not count.
Files: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), https://docs.kernel.org/scheduler/sched-bwc.html.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Whole cores that the affinity mask and the container's quota leave, at least 1.

    Args:
        root: where the control groups are mounted.
        membership: the groups of this process.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(cpu_quota(root, _read(membership)))))


def cpu_quota(root: Path, membership: str) -> float:
    """Cores' worth of time that the tightest control group around a process gives it; infinite without a limit.

    Args:
        root: where the control groups are mounted.
        membership: content of `/proc/self/cgroup`, lines of `number:controllers:path`.
    """
    quotas = [2.0**31]  # more than any machine has, and still a whole number
    for line in membership.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2
            quotas += [_quota(*_read(folder / "cpu.max").split()) for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / controllers, path):
                quotas.append(_quota(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")))
    return min(quotas)


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The group and those above it. Inside a container the path may be the host's: then only the root exists."""
    folder = root / path.strip("/")
    while folder != root and root in folder.parents:
        yield folder
        folder = folder.parent
    yield root


def _quota(quota: str = "max", period: str = "100000") -> float:
    """Of two numbers in microseconds; `max`, -1 or nothing is no limit."""
    try:
        return int(quota) / int(period) if int(quota) > 0 else 2.0**31
    except (ValueError, ZeroDivisionError):
        return 2.0**31


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
