import os
from pathlib import Path

import pytest

from service.memory import usable_memory

MACHINE = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


@pytest.mark.parametrize(
    ("files", "membership", "expected"),
    [
        ({}, "0::/", MACHINE),
        ({"memory.max": "max"}, "0::/", MACHINE),
        ({"memory.max": "1000000"}, "0::/path/of/the/host", 1e6),
        ({"a/memory.max": "1000000", "a/b/memory.max": "2000000"}, "0::/a/b", 1e6),
        ({"memory/c/memory.limit_in_bytes": "3000000"}, "5:cpu:/\n4:memory:/c", 3e6),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, "4:memory:/c", MACHINE),
        ({"memory.max": "broken"}, "no colons", MACHINE),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, files: dict[str, str], membership: str, expected: float) -> None:
    for name, content in (files | {"membership": membership}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert usable_memory(tmp_path, tmp_path / "membership") == expected


def test_here_there_is_some() -> None:
    assert 0 < usable_memory() <= MACHINE
