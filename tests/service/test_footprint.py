import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.footprint import resident_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel shows processes under /proc on Linux alone")
_HOLD = "import sys; held = b'x' * 40_000_000; print('ready', flush=True); sys.stdin.read()"


def process(proc: Path, pid: int, pages: int, children: str = "") -> None:
    task = proc / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    (task / "children").write_text(children)
    (proc / str(pid) / "statm").write_text(f"9999 {pages} 1 1 0 1 0")


def test_everything_below_the_leader_counts(tmp_path: Path) -> None:
    process(tmp_path, 7, 10, "8 9 ")
    process(tmp_path, 8, 100, "12 ")
    process(tmp_path, 9, 1000)
    process(tmp_path, 12, 10_000)
    process(tmp_path, 99, 100_000)  # of somebody else
    (tmp_path / "self").symlink_to("7")
    assert resident_bytes(7, tmp_path) == 11_110 * os.sysconf("SC_PAGE_SIZE")


def test_a_process_that_has_just_ended_counts_nothing(tmp_path: Path) -> None:
    process(tmp_path, 7, 10, "8 ")
    (tmp_path / "self").symlink_to("7")
    assert resident_bytes(7, tmp_path) == 10 * os.sysconf("SC_PAGE_SIZE")


def test_without_a_kernel_that_shows_it_there_is_no_number(tmp_path: Path) -> None:
    assert math.isnan(resident_bytes(7, tmp_path))


@linux
def test_a_real_child_is_seen() -> None:
    before = resident_bytes(os.getpid())
    with subprocess.Popen([sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert resident_bytes(os.getpid()) - before > 40_000_000
        child.communicate(b"")
