import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from served_process import COMMAND, Conversation, ServedProcess, environment, served, statuses
from tiny_artifact import write_artifact

from .conftest import picture

RED = picture()
HEAD = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(RED)


def stop(service: ServedProcess, sig: signal.Signals = signal.SIGTERM) -> None:
    service.process.send_signal(sig)


def ask(service: ServedProcess) -> bytes:
    """One request on a connection of its own, and its reply."""
    with service.connect() as conversation:
        conversation.send(HEAD + RED)
        return conversation.reply()


def half_sent(service: ServedProcess) -> Conversation:
    """A request that the service has begun to read."""
    conversation = service.connect()
    conversation.send(HEAD + RED[:10])
    until = time.monotonic() + 5
    while "patchserve_upload_bytes 10.0" not in service.get("/metrics")[1] and time.monotonic() < until:
        time.sleep(0.01)
    return conversation


def test_it_serves_and_says_where(artifact: Path) -> None:
    with served(artifact) as service:
        assert service.process.stdout is not None
        assert service.process.stdout.readline() == "\n"
        line = service.process.stdout.readline()
        assert re.fullmatch(rf"    curl -F file=@\S+ http://127.0.0.1:{service.port}/classify\n", line)
        assert service.get("/readyz")[0] == 200
        received = ask(service)
        assert b'"label":"red"' in received
        stop(service, signal.SIGINT)
        assert service.process.wait(10) == 0


def test_readiness_goes_first_and_serving_goes_on(artifact: Path) -> None:
    with served(artifact, drain_delay_s=1.5) as service:
        stop(service)
        time.sleep(0.3)
        status, body = service.get("/readyz")
        assert (status, '"code":"draining"' in body) == (503, True)
        assert service.get("/livez")[0] == 200
        with service.connect() as conversation:
            conversation.send(HEAD + RED)
            reply = conversation.reply()
            assert statuses(reply) == [200]
            assert b"connection: close" in reply.lower()
        assert service.process.wait(10) == 0
        with pytest.raises(ConnectionRefusedError):
            service.connect()


def test_what_was_accepted_is_finished(artifact: Path) -> None:
    with served(artifact, drain_delay_s=0.1) as service:
        conversation = half_sent(service)
        idle = service.connect()
        stop(service)
        time.sleep(0.5)
        conversation.send(RED[10:])
        assert statuses(conversation.reply()) == [200]
        assert service.process.wait(10) == 0
        conversation.socket.close()
        idle.socket.close()


def test_a_half_sent_body_does_not_hold_the_exit(artifact: Path) -> None:
    with served(artifact, drain_delay_s=0.1, body_timeout_s=0.8, upload_grace_s=0.8) as service:
        conversation = half_sent(service)
        stop(service)
        assert statuses(conversation.reply()) == [408]
        conversation.socket.close()
        assert service.process.wait(5) == 0


def test_what_is_longer_than_the_grace_gets_503_and_never_500(artifact: Path) -> None:
    with served(artifact, drain_delay_s=0.1, shutdown_grace_s=1) as service:
        conversation = half_sent(service)
        stop(service)
        reply = conversation.reply()
        assert statuses(reply) == [503]
        assert b'"code":"draining"' in reply
        conversation.socket.close()
        assert service.process.wait(5) == 0


def test_a_second_signal_ends_at_once(artifact: Path) -> None:
    with served(artifact, drain_delay_s=30) as service:
        stop(service, signal.SIGINT)
        time.sleep(0.3)
        assert service.process.poll() is None
        stop(service, signal.SIGINT)
        assert service.process.wait(2) == 128 + signal.SIGINT


def test_a_stop_under_load_loses_nothing_that_was_accepted(artifact: Path) -> None:
    """Clients that reconnect as they are told; refusals of the connection are what the drain delay is for."""
    lost: list[str] = []
    answered = [0]
    over = threading.Event()

    def client(service: ServedProcess) -> None:
        while not over.is_set():
            try:
                conversation = service.connect()
            except ConnectionRefusedError:
                return
            with conversation:
                try:
                    conversation.send(HEAD + RED)
                    status = statuses(conversation.reply())
                except (AssertionError, OSError) as error:
                    lost.append(repr(error))
                    return
                if status == [200]:
                    answered[0] += 1
                elif status != [503]:
                    lost.append(str(status))

    with served(artifact, drain_delay_s=0.5) as service:
        threads = [threading.Thread(target=client, args=(service,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        stop(service)
        time.sleep(0.3)  # a balancer looks away inside the drain delay
        over.set()
        for thread in threads:
            thread.join()
        assert service.process.wait(10) == 0
    assert answered[0] > 10
    assert lost == []


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=20, env=environment(**variables), check=False
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--prot", "1"], {}, "--prot"),
        ([], {"PATCHSERVE_PROT": "1"}, "PATCHSERVE_PROT"),
        (["nowhere.onnx"], {}, "nowhere.onnx cannot be read"),
        (["MODEL", "--host", "256.1.1.1"], {}, "256.1.1.1"),
        (["MODEL", "--max-queue-patches", "5"], {}, "--max-queue-patches is 5"),
    ],
)
def test_a_bad_start_is_one_line_and_not_zero(
    artifact: Path, arguments: list[str], variables: dict[str, str], words: str
) -> None:
    arguments = [str(artifact) if each == "MODEL" else each for each in arguments]
    ended = run("serve", *arguments, **variables)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("patchserve: ")
    assert ended.stderr.count("\n") == 1
    assert words in ended.stderr


def test_a_port_in_use_is_named(artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", str(artifact), "--port", str(port))
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert f"port {port}: Address already in use" in ended.stderr


def test_a_model_that_fails_its_warm_up_never_listens(tmp_path: Path) -> None:
    ended = run("serve", str(write_artifact(tmp_path / "nan.onnx", scale=float("nan"))))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "finite" in ended.stderr


def test_help_needs_no_model(artifact: Path) -> None:
    ended = run("serve", "--help")
    assert ended.returncode == 0
    assert "--max-batch-patches" in ended.stdout


BLOCKED = """
import sys
for name in ("torch", "onnx", "safetensors", "onnxscript", "timm", "transformers"):
    sys.modules[name] = None
from service.cli import main
main()
"""


def test_the_base_install_serves_without_torch(artifact: Path, tmp_path: Path) -> None:
    image = tmp_path / "red.png"
    image.write_bytes(RED)
    command = [COMMAND[0], "-c", BLOCKED]
    ended = subprocess.run(
        [*command, "classify", str(image), "--model", str(artifact), "--json"],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(),
        check=False,
    )
    assert '"label": "red"' in ended.stdout, ended.stderr
    process = subprocess.Popen(
        [*command, "serve", str(artifact), "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert b'"label":"red"' in ask(ServedProcess(process))
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


def test_a_log_that_nobody_reads_stalls_no_request_and_no_end(artifact: Path) -> None:
    command = [*COMMAND, "serve", str(artifact), "--port=0"]
    # Without a buffer nothing would be left to flush at the end.
    buffered = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=buffered)
    try:
        service = ServedProcess(process)
        with service.connect() as conversation:
            for _ in range(500):  # 200 bytes of log each: more than a pipe holds
                conversation.send(b"GET /models HTTP/1.1\r\nHost: t\r\n\r\n")
                assert statuses(conversation.reply()) == [200]
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_log_that_cannot_be_written_fails_no_request(artifact: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [*COMMAND, "serve", str(artifact), "--port=0"],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            env=environment(),
        )
        try:
            service = ServedProcess(process)
            for _ in range(3):
                assert statuses(ask(service)) == [200]
            lost = re.search(r"patchserve_log_lines_lost (\d+)", service.get("/metrics")[1])
            assert lost
            assert int(lost[1]) >= 3
        finally:
            process.terminate()
            process.communicate()
    assert process.returncode == 0
