import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from served_process import ServedProcess, environment, served, statuses
from tiny_artifact import write_artifact

from tests.service.conftest import picture

RED = picture()
REQUEST = (
    b"POST /classify?timeout_ms=20000 HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\n"
    b"Content-Length: %d\r\n\r\n" % len(RED)
) + RED


def ask(service: ServedProcess) -> bytes:
    with service.connect() as conversation:
        conversation.socket.settimeout(25)
        conversation.send(REQUEST)
        return conversation.reply()


def metric(service: ServedProcess, name: str) -> float:
    found = re.search(rf"^patchserve_{re.escape(name)} (\S+)$", service.get("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def metric_folder(pid: int) -> Path:
    """Where a process has its numbers: files in its memory."""
    found = re.search(r"(/\S+/patchserve-[^/\s]+)/", Path(f"/proc/{pid}/maps").read_text())
    assert found
    return Path(found[1])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def faulty(artifact: Path, commands: Path, **settings: Any) -> Iterator[ServedProcess]:
    commands.write_text("")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    script = str(Path(__file__).parents[2] / "faulty_engine.py")
    process = subprocess.Popen(
        [sys.executable, script, str(artifact), str(commands), "--port=0", "--log-level=error", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(PYTHONPATH=str(Path(__file__).parents[3])),
    )
    try:
        yield ServedProcess(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    return tmp_path / "commands"


def engine_of(service: ServedProcess) -> int:
    """The first process that the parent starts, as long as it has not died."""
    return children(service.process.pid)[0]


def test_every_process_answers_and_whoever_is_asked_knows_all(artifact: Path) -> None:
    with served(artifact, http_workers=3) as service:
        assert len(children(service.process.pid)) == 4
        replies = [ask(service) for _ in range(24)]
        assert all(b'"label":"red"' in reply for reply in replies)
        counts = {metric(service, 'requests_total{outcome="ok",route="/classify"}') for _ in range(12)}
        assert counts == {24.0}
        assert metric(service, "http_processes_up") == 3
        assert metric(service, "queue_patches") == metric(service, "upload_bytes") == 0
        assert service.get("/readyz")[0] == service.get("/models")[0] == 200


def test_the_end_finishes_what_was_accepted(artifact: Path) -> None:
    with served(artifact, http_workers=2, drain_delay_s=0) as service:
        everybody = children(service.process.pid)
        conversation = service.connect()
        conversation.send(REQUEST[:-10])
        until(lambda: metric(service, "upload_bytes") > 0)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        conversation.send(REQUEST[-10:])
        assert statuses(conversation.reply()) == [200]
        conversation.socket.close()
        assert service.process.wait(10) == 0
        assert not any(map(alive, everybody))


def test_ctrl_c_reaches_all_and_is_no_second_signal(artifact: Path) -> None:
    with served(artifact, http_workers=2) as service:
        ask(service)
        for pid in [*children(service.process.pid), service.process.pid]:
            os.kill(pid, signal.SIGINT)
        assert service.process.wait(10) == 0


def test_a_second_signal_ends_all_at_once(artifact: Path) -> None:
    with served(artifact, http_workers=2, drain_delay_s=30) as service:
        everybody = children(service.process.pid)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(5) == 128 + signal.SIGTERM
        assert not any(map(alive, everybody))


def test_without_the_parent_all_end(artifact: Path) -> None:
    with served(artifact, http_workers=2, drain_delay_s=0) as service:
        kill_parent(service)


def kill_parent(service: ServedProcess) -> None:
    """Nobody and nothing is left of a service whose parent is killed."""
    everybody = children(service.process.pid)
    folder = metric_folder(everybody[-1])
    assert folder.is_dir()
    service.process.kill()
    until(lambda: not any(map(alive, everybody)))
    assert not folder.exists()


def test_a_dead_http_process_loses_only_its_own_requests(artifact: Path) -> None:
    with served(artifact, http_workers=2) as service:
        engine, *workers = children(service.process.pid)
        open_uploads = [service.connect() for _ in range(16)]  # dealt out among both processes
        for conversation in open_uploads:
            conversation.send(REQUEST[:-10])
        until(lambda: metric(service, "upload_bytes") == 16 * (len(RED) - 10))
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: metric(service, "process_restarts") == 1)
        for conversation in open_uploads:
            conversation.send(REQUEST[-10:])
        answers = []
        for conversation in open_uploads:
            answers += statuses(conversation.everything(0.1))
            conversation.socket.close()
        assert 0 < len(answers) < 16
        assert set(answers) == {200}
        until(lambda: metric(service, "http_processes_up") == 2)
        assert statuses(b"".join(ask(service) for _ in range(16))) == [200] * 16
        assert metric(service, "queue_patches") == metric(service, "upload_bytes") == 0
        assert alive(engine)


def test_a_dead_engine_is_replaced_and_nothing_accepted_is_lost(artifact: Path, commands: Path) -> None:
    with faulty(artifact, commands) as service:
        ask(service)
        commands.write_text("die")
        assert statuses(ask(service)) == [200]
        assert metric(service, "process_restarts") == 1
        assert metric(service, "engine_up") == 1


def test_while_there_is_no_engine_the_service_is_not_ready(artifact: Path) -> None:
    with served(artifact, http_workers=2) as service:
        os.kill(engine_of(service), signal.SIGKILL)
        until(lambda: service.get("/readyz")[0] == 503)
        assert service.get("/livez")[0] == 200
        until(lambda: service.get("/readyz")[0] == 200)
        assert statuses(ask(service)) == [200]


def test_an_image_that_kills_engines_is_given_up(artifact: Path, commands: Path) -> None:
    with faulty(artifact, commands) as service:
        commands.write_text("die always")
        assert statuses(ask(service)) == [500]
        commands.write_text("")
        until(lambda: service.get("/readyz")[0] == 200)
        assert statuses(ask(service)) == [200]


def test_a_hung_engine_is_replaced(artifact: Path, commands: Path) -> None:
    with faulty(artifact, commands, engine_timeout_s=1) as service:
        hung = engine_of(service)
        commands.write_text("hang")
        assert statuses(ask(service)) == [200]
        assert not alive(hung)


@pytest.mark.parametrize("command", ["lie", "lose"])
def test_a_sick_engine_is_replaced(artifact: Path, commands: Path, command: str) -> None:
    with faulty(artifact, commands, canary_interval_s=0.1) as service:
        sick = engine_of(service)
        commands.write_text(command)
        until(lambda: not alive(sick))
        until(lambda: metric(service, "process_restarts") == 1)
        until(lambda: service.get("/readyz")[0] == 200)
        assert b'"red"' in ask(service).split(b"score")[0]


@pytest.mark.parametrize("command", ["lie", "lose", "hang"])
def test_a_sick_engine_in_the_only_process_ends_it(artifact: Path, commands: Path, command: str) -> None:
    flags = {"canary_interval_s": 0.1, "engine_timeout_s": 1, "drain_delay_s": 2, "shutdown_grace_s": 1}
    with faulty(artifact, commands, http_workers=1, **flags) as service:
        assert statuses(ask(service)) == [200]
        commands.write_text(command)
        until(lambda: service.get("/readyz")[0] == 503)
        assert b'"device_lost"' in ask(service)
        assert service.process.wait(10) == 1


def test_load_goes_on_over_deaths(artifact: Path) -> None:
    with served(artifact, http_workers=2) as service:
        engine, *_ = children(service.process.pid)
        received: list[int] = []

        def client() -> None:
            for _ in range(60):
                received.extend(statuses(ask(service)))

        clients = [threading.Thread(target=client) for _ in range(4)]
        for each in clients:
            each.start()
        time.sleep(0.2)
        os.kill(engine, signal.SIGKILL)
        for each in clients:
            each.join()
        assert len(received) == 240
        assert set(received) <= {200, 503}
        assert received.count(200) > 100


def test_a_wrong_model_is_one_line(tmp_path: Path) -> None:
    wrong = write_artifact(tmp_path / "wrong.onnx", manifest=None)
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve", str(wrong), "--http-workers=2"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(r"patchserve: the model .* has no manifest: .*\n", ended.stderr)


def test_too_little_patch_memory_is_one_line(tmp_path: Path, artifact: Path) -> None:
    flags = ["--http-workers=2", "--patch-memory-bytes=1048576", "--max-files=1000"]
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve", str(artifact), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30, check=False)
    assert (ended.returncode, "--patch-memory-bytes" in ended.stderr, ended.stderr.count("\n")) == (1, True, 1)
