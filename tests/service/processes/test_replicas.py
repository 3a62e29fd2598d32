"""Two replicas, real processes. One service for the file: each test leaves it as it found it, the last one ends it."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from served_process import COMMAND, ServedProcess, environment, served, statuses

from service.cores import usable_cores

from .test_reload import KEYS, digests, put, reload
from .test_supervisor import REQUEST, alive, ask, children, kill_parent, metric, until

pytestmark = pytest.mark.skipif(usable_cores() < 2, reason="two replicas need two cores")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replicas") / "colours.onnx"
    put(path, "1.0", "colours")
    return path


@pytest.fixture(scope="module")
def log(file: Path) -> Path:
    return file.with_name("log")


@pytest.fixture(scope="module")
def service(file: Path, log: Path) -> Iterator[ServedProcess]:
    with log.open("w") as stream, two_replicas(file, stderr=stream, log_level="info") as service:
        yield service


@contextmanager
def two_replicas(file: Path, **settings: Any) -> Iterator[ServedProcess]:
    keys = {"PATCHSERVE_API_KEYS": KEYS, "PATCHSERVE_ALLOW_ANONYMOUS": "true"}
    with served(file, **{"replicas": 2, "drain_delay_s": 0, "variables": keys} | settings) as service:
        yield service


def who_answered(log: Path) -> set[str]:
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return {line["process"] for line in lines if line["event"] == "request"}


def test_each_replica_answers_on_cores_of_its_own(service: ServedProcess, log: Path) -> None:
    one, two = children(service.process.pid)
    assert os.sched_getaffinity(one) | os.sched_getaffinity(two) == os.sched_getaffinity(0)
    assert not os.sched_getaffinity(one) & os.sched_getaffinity(two)
    assert len(digests(service)) == 1
    until(lambda: who_answered(log) == {"replica-1", "replica-2"})


def test_whoever_is_asked_knows_what_all_have_done(service: ServedProcess) -> None:
    before = metric(service, 'requests_total{outcome="ok",route="/classify"}')
    digests(service)
    until(lambda: metric(service, 'requests_total{outcome="ok",route="/classify"}') == before + 24)
    counts = {metric(service, 'requests_total{outcome="ok",route="/classify"}') for _ in range(12)}
    assert counts == {before + 24}
    assert metric(service, "queue_patches") == metric(service, "upload_bytes") == 0
    assert metric(service, "http_processes_up") == 2
    assert {service.get("/readyz")[0] for _ in range(12)} == {200}


def test_a_reload_is_done_when_all_have_done_it(service: ServedProcess, file: Path) -> None:
    [old] = digests(service)
    new = put(file, "2.0", "colours")
    assert digests(service) == {old}
    status, document = reload(service, "colours/")
    [changed] = document["models"]
    assert (status, changed["outcome"], changed["new"]["digest"]) == (200, "reloaded", new)
    assert digests(service) == {new}
    assert reload(service, "unknown/")[0] == 404


def test_a_bad_file_displaces_nothing(service: ServedProcess, file: Path) -> None:
    before, good = digests(service), file.read_bytes()
    file.write_bytes(b"no model")
    status, document = reload(service)
    assert (status, document["code"]) == (409, "model_refused")
    assert digests(service) == before
    file.write_bytes(good)


def test_sighup_reloads_all(service: ServedProcess, file: Path) -> None:
    reloaded = metric(service, 'reloads_total{outcome="reloaded"}')
    new = put(file, "3.0", "colours")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: metric(service, 'reloads_total{outcome="reloaded"}') == reloaded + 2)
    assert digests(service) == {new}


def is_answered(service: ServedProcess) -> bool:
    try:
        return statuses(ask(service)) == [200]
    except ConnectionResetError:
        return False


def test_a_dead_replica_loses_only_its_own_requests_and_all_serve_what_its_successor_does(
    service: ServedProcess, file: Path
) -> None:
    one, two = children(service.process.pid)
    open_uploads = [service.connect() for _ in range(16)]
    for conversation in open_uploads:
        conversation.send(REQUEST[:-10])
    until(lambda: metric(service, "upload_bytes") == 16 * len(REQUEST[REQUEST.index(b"\r\n\r\n") + 4 : -10]))
    new = put(file, "4.0", "colours")
    os.kill(one, signal.SIGKILL)
    until(lambda: not alive(one))
    until(lambda: is_answered(service))  # a connection that the kernel gave to the dead one at the last moment is reset
    answers = []
    for conversation in open_uploads:
        conversation.send(REQUEST[-10:])
        answers += statuses(conversation.everything(0.2))
        conversation.socket.close()
    assert 0 < len(answers) < 16
    assert set(answers) == {200}
    until(lambda: metric(service, "http_processes_up") == 2)
    until(lambda: digests(service) == {new})
    assert two in children(service.process.pid)
    assert metric(service, "process_restarts") == 1


@pytest.mark.parametrize("flag", ["--replicas=2", "--http-workers=2"])
def test_a_second_service_does_not_slip_in_at_the_port(service: ServedProcess, file: Path, flag: str) -> None:
    command = [*COMMAND, "serve", str(file), flag, f"--port={service.port}"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(r"patchserve: cannot listen on .* Address already in use\n", ended.stderr)


def test_the_end_finishes_what_was_accepted(service: ServedProcess) -> None:
    everybody = children(service.process.pid)
    with service.connect() as conversation:
        conversation.send(REQUEST[:-10])
        until(lambda: metric(service, "upload_bytes") > 0)
        service.process.send_signal(signal.SIGTERM)
        until(lambda: len(children(service.process.pid)) == 1)  # the other has nothing to finish
        conversation.send(REQUEST[-10:])
        assert statuses(conversation.reply()) == [200]
    assert service.process.wait(10) == 0
    assert not any(map(alive, everybody))


def test_without_the_parent_all_end(file: Path) -> None:
    with two_replicas(file) as service:
        kill_parent(service)


def test_when_no_replica_stays_alive_the_service_ends(file: Path) -> None:
    with two_replicas(file) as service:
        file.write_bytes(b"no model")
        for pid in children(service.process.pid):
            os.kill(pid, signal.SIGKILL)
        assert service.process.wait(60) == 1


def test_what_a_replica_finds_wrong_at_the_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "wrong.onnx").write_bytes(b"no model")
    command = [*COMMAND, "serve", str(tmp_path / "wrong.onnx"), "--replicas=2", "--port=0"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(r"patchserve: the model .* is no single-file ONNX model.*\n", ended.stderr)
