"""How many cores this process may use: `os.cpu_count` counts those of the machine, whatever the container allows.

A container's limit is not a set of cores but time on all of them (`--cpus 2`): each period of usually 100 ms the
kernel lets its threads run for a quota, then stops all of them until the next. More threads than the quota pays for
stall a run in its middle, so a part of a core does not count.
Files: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), https://docs.kernel.org/scheduler/sched-bwc.html.
"""

import os
from pathlib import Path

from service.control_groups import MEMBERSHIP, ROOT, folders_of, read


def usable_cores(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """Whole cores that the affinity mask and the container's quota leave, at least 1.

    Args:
        root: where the control groups are mounted.
        membership: the groups of this process.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(cpu_quota(root, read(membership)))))


def cpu_quota(root: Path, membership: str) -> float:
    """Cores' worth of time that the tightest control group around a process gives it; infinite without a limit.

    Args:
        root: where the control groups are mounted.
        membership: content of `/proc/self/cgroup`, lines of `number:controllers:path`.
    """
    quotas = [2.0**31]  # more than any machine has, and still a whole number
    for folder in folders_of("cpu", root, membership):
        quotas.append(_quota(*read(folder / "cpu.max").split()))
        quotas.append(_quota(read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")))
    return min(quotas)


def _quota(quota: str = "max", period: str = "100000") -> float:
    """Of two numbers in microseconds; `max`, -1 or nothing is no limit."""
    try:
        return int(quota) / int(period) if int(quota) > 0 else 2.0**31
    except (ValueError, ZeroDivisionError):
        return 2.0**31
