"""A plugin of pytest: what each case of the catalogue of faults cost the service, told at the end.

Where xdist runs the tests in several processes, each tells the first one.
"""

import re
from dataclasses import astuple, dataclass
from typing import Any

import pytest

_CLASSES = {
    "A": "HTTP framing",
    "B": "multipart",
    "C": "parameters",
    "D": "image decode",
    "E": "slow and vanishing clients",
    "F": "overload",
    "G": "lifecycle",
    "H": "model files",
    "I": "runtime",
}


@dataclass(frozen=True)
class Cost:
    """What one case cost the service."""

    row: str
    case: str
    requests: int
    server_errors: int
    cpu_s: float
    memory_mb: float


_DEAREST = 10
_COSTS = pytest.StashKey[list[Cost]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_COSTS] = []


def note_cost(
    request: pytest.FixtureRequest, requests: int, errors: int, cpu_s: float = 0.0, memory_mb: float = 0.0
) -> None:
    """Remember what a case cost, for the report."""
    name = request.node.name
    row = re.search(r"(?:^test_|\[|-)([a-i][0-9]+)", name, re.IGNORECASE)
    assert row, f"the name of a case begins with its row, unlike {name}"
    request.config.stash[_COSTS].append(Cost(row[1].upper(), name, requests, errors, cpu_s, memory_mb))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the costs over, in a process of xdist."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["costs"] = [astuple(each) for each in session.config.stash[_COSTS]]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the costs over, in the process that asked for others; one that died has told nothing."""
    handed = getattr(node, "workeroutput", {}).get("costs", [])
    node.config.stash[_COSTS] += [Cost(*each) for each in handed]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Cases, 5xx, and for each class the most that one request bought."""
    costs = config.stash[_COSTS]
    if not costs:
        return
    write = terminalreporter.write_line
    terminalreporter.section("faults")
    write(
        f"{len(costs)} cases of {len({each.row for each in costs})} rows, "
        f"{sum(each.requests for each in costs)} requests, {sum(each.server_errors for each in costs)} with a 5xx"
    )
    write("")
    write(f"{'class':<30}{'cases':>6}{'CPU s':>8}  {'by':<8}{'MB':>6}  by")
    for letter, words in _CLASSES.items():
        mine = [each for each in costs if each.row[0] == letter]
        single = [each for each in mine if each.requests == 1]
        if not single:
            write(f"{letter} {words:<28}{len(mine):>6}")
            continue
        slowest = max(single, key=lambda each: each.cpu_s)
        largest = max(single, key=lambda each: each.memory_mb)
        write(
            f"{letter} {words:<28}{len(mine):>6}{slowest.cpu_s:>8.2f}  {slowest.row:<8}{largest.memory_mb:>6.0f}  "
            f"{largest.row}"
        )
    write("")
    write(
        "CPU s, MB: the most CPU time and the highest growth of memory that one request bought. The dearest requests:"
    )
    for each in sorted((each for each in costs if each.requests == 1), key=lambda each: -each.cpu_s)[:_DEAREST]:
        write(f"{each.cpu_s:>8.2f} s{each.memory_mb:>6.0f} MB  {each.case}")
