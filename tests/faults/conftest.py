"""The catalogue of faults against one running service: after each, the invariants; at the end, what it cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_artifact import write_artifact

from .live import Live, live_service

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


_COSTS = pytest.StashKey[list[Cost]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_COSTS] = []


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def _service(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_service(
        artifact,
        tmp_path_factory.mktemp("live"),
        header_timeout_s=0.5,
        body_timeout_s=2,
        upload_grace_s=0.5,
        linger_timeout_s=1,
        keep_alive_timeout_s=2,
        reply_timeout_s=0.5,
        max_timeout_ms=20_000,
        default_timeout_ms=20_000,
    ) as live:
        yield live


@pytest.fixture
def live(_service: Live, request: pytest.FixtureRequest) -> Iterator[Live]:
    """The service, which must be as before when the test is over."""
    before, memory_mb = _service.state(), _service.memory_mb()
    _service.before = before
    _service.forget_peak()
    cpu_s = _service.cpu_s()
    yield _service
    _service.settle()
    cpu_s = _service.cpu_s() - cpu_s
    peak_mb = max(0.0, _service.memory_mb("VmHWM") - memory_mb)
    replies = _service.replies()
    requests = len(replies) + _service.unanswered.total()
    errors = sum(reply.status >= 500 for reply in replies) - _service.late
    _service.late = 0
    note_cost(request, requests, errors, cpu_s, peak_mb)
    _service.check(before, memory_mb)
    assert errors == 0, "no 5xx for anything that a client can send"


def note_cost(
    request: pytest.FixtureRequest, requests: int, errors: int, cpu_s: float = 0.0, memory_mb: float = 0.0
) -> None:
    """Remember what a case cost, for the report."""
    name = request.node.name
    row = name[name.find("[") + 1 :].split("-")[0].split(" ")[0] if "[" in name else name.split("_")[1].upper()
    request.config.stash[_COSTS].append(Cost(row, name, requests, errors, cpu_s, memory_mb))


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
    write("CPU s, MB: the most CPU time and the highest growth of memory that one request bought.")
