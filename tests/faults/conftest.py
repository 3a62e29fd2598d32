"""The catalogue of faults against one running service: after each, the invariants and what it cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault_costs import note_cost
from tiny_artifact import write_artifact

from .live import PATCHES, Live, live_service, replace_text, slow_command

QUEUED = 10  # images that `slow` holds


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that can be explained."""
    return write_artifact(tmp_path_factory.mktemp("model") / "tiny.onnx", attention=True)


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
    with watched(_service, request) as live:
        yield live


@pytest.fixture(scope="session")
def _commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("commands") / "commands"
    path.write_text("")
    return path


@pytest.fixture(scope="session")
def _slow_service(artifact: Path, _commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_service(
        artifact,
        tmp_path_factory.mktemp("slow"),
        command=slow_command(artifact, _commands),
        max_queue_patches=QUEUED * PATCHES,
        engine_lanes=1,
        canary_interval_s=0,
        default_timeout_ms=20_000,
    ) as live:
        yield live


@pytest.fixture
def slow(_slow_service: Live, request: pytest.FixtureRequest) -> Iterator[Live]:
    """A service that holds ten images, with one lane and an engine that takes as long as it is told to."""
    with watched(_slow_service, request) as live:
        yield live


@pytest.fixture
def run_takes(_commands: Path) -> Iterator[Callable[[float], None]]:
    """Make every run of the engine of `slow` that many seconds longer."""
    yield lambda seconds: replace_text(_commands, f"slow {seconds}")
    replace_text(_commands, "")


@contextmanager
def watched(live: Live, request: pytest.FixtureRequest) -> Iterator[Live]:
    """One case, with the invariants of the catalogue after it and its cost in the report."""
    before, memory_mb = live.state(), live.memory_mb()
    live.before = before
    live.forget_peak()
    cpu_s = live.cpu_s()
    yield live
    live.settle()
    cpu_s = live.cpu_s() - cpu_s
    peak_mb = max(0.0, live.memory_mb("VmHWM") - memory_mb)
    replies = live.replies()
    requests = len(replies) + live.unanswered.total()
    errors = sum(reply.status >= 500 for reply in replies) - live.late
    live.late = 0
    note_cost(request, requests, errors, cpu_s, peak_mb)
    live.check(before, memory_mb)
    assert errors == 0, "no 5xx for anything that a client can send"
