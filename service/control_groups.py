"""The folders in which the kernel says what the control groups around a process allow it.

Files: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/index.html.
"""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def folders_of(controller: str, root: Path, membership: str) -> Iterator[Path]:
    """The groups of a process and all above them, of either version, as far as they may limit this.

    Args:
        controller: such as `cpu`; with version 2 one group has all.
        root: where the control groups are mounted.
        membership: content of `/proc/self/cgroup`, lines of `number:controllers:path`.
    """
    for line in membership.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2
            yield from _upwards(root, path)
        elif controller in controllers.split(","):
            yield from _upwards(root / controllers, path)


def read(path: Path) -> str:
    """What a file says; nothing if there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The group and those above it. Inside a container the path may be the host's: then only the root exists."""
    folder = root / path.strip("/")
    while folder != root and root in folder.parents:
        yield folder
        folder = folder.parent
    yield root
