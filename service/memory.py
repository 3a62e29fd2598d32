"""How much memory this process may use: of the machine, or what its container leaves of it."""

import math
import os
from pathlib import Path

from service.control_groups import MEMBERSHIP, ROOT, folders_of, read

_FILES = ("memory.max", "memory.limit_in_bytes")  # of either version; "max" or a number past any memory is no limit


def usable_memory(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """Bytes, what others use of them included; infinite where the system does not say.

    Args:
        root: where the control groups are mounted.
        membership: the groups of this process.
    """
    folders = folders_of("memory", root, read(membership))
    limits = [read(folder / name) for folder in folders for name in _FILES]
    return min([_of_machine(), *(float(limit) for limit in limits if limit.isdecimal())])


def _of_machine() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows has no such call
        return math.inf
