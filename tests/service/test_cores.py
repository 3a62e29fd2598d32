import os
from pathlib import Path

import pytest

from service.cores import cpu_quota, usable_cores


def limits(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "400000 100000"}, "0::/a/b", 4.0),
        ({"a/cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000"}, "0::/a/b", 2.0),
        ({"cpu.max": "50000 100000"}, "0::/path/of/the/host", 0.5),
        ({"cpu,x/c/cpu.cfs_quota_us": "300000", "cpu,x/c/cpu.cfs_period_us": "100000"}, "4:cpu,x:/c", 3.0),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, "5:memory:/x\n4:cpu:/docker/77", 2.5),
    ],
)  # fmt: skip
def test_the_tightest_group_counts(tmp_path: Path, files: dict[str, str], membership: str, quota: float) -> None:
    assert cpu_quota(limits(tmp_path, files), membership) == quota


@pytest.mark.parametrize(
    ("files", "membership"),
    [
        ({}, ""),
        ({}, "0::/"),
        ({"cpu.max": "max 100000"}, "0::/"),
        ({"cpu.max": "broken"}, "0::/"),
        ({"cpu.max": "100000 0"}, "0::/"),
        ({"cpu.max": ""}, "0::/../../elsewhere"),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/"),
        ({}, "no colons"),
    ],
)
def test_without_a_readable_limit_there_is_none(tmp_path: Path, files: dict[str, str], membership: str) -> None:
    assert cpu_quota(limits(tmp_path, files), membership) > 1e6


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("199999 100000", 1), ("max 100000", None)])
def test_cores_are_whole_and_at_least_one(tmp_path: Path, quota: str, cores: int | None) -> None:
    limits(tmp_path, {"cpu.max": quota, "membership": "0::/"})
    allowed = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path, tmp_path / "membership") == (cores or allowed)


def test_here_there_is_at_least_one() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
