"""API keys in front of a real service: one process, and several that count together."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from served_process import COMMAND, Conversation, ServedProcess, environment, served, statuses

from service.keys import digest_of
from tests.service.conftest import picture

RED = picture()
SHOP, CAMERA, BOSS = b"patchserve_shop", b"patchserve_camera", b"patchserve_boss"


def request(key: bytes | None, body: bytes = RED, more: bytes = b"") -> bytes:
    sent = b"" if key is None else b"Authorization: Bearer " + key + b"\r\n"
    head = b"POST /classify?timeout_ms=20000 HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nContent-Length: %d\r\n"
    return head % len(body) + sent + more + b"\r\n" + body


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    lines = [
        f"shop:user:{digest_of(SHOP).hex()}:12/day",
        f"camera:user:{digest_of(CAMERA).hex()}",
        f"boss:admin:{digest_of(BOSS).hex()}",
    ]
    path = tmp_path / "keys"
    path.write_text("\n".join(lines))
    return path


def ask(service: ServedProcess, key: bytes | None) -> bytes:
    """On a connection of its own, which the kernel deals to any of the processes."""
    with service.connect() as conversation:
        conversation.socket.settimeout(25)
        conversation.send(request(key))
        return conversation.reply()


@pytest.mark.parametrize("processes", [1, 3])
def test_all_processes_together_let_a_key_in_as_often_as_it_may(artifact: Path, keys: Path, processes: int) -> None:
    with served(artifact, http_workers=processes, api_keys_file=keys) as service:
        assert statuses(ask(service, None)) == [401]
        replies = [ask(service, SHOP) for _ in range(30)]
        assert [statuses(reply)[0] for reply in replies] == [200] * 12 + [429] * 18
        seconds = [int(found) for reply in replies for found in re.findall(rb"retry-after: (\d+)", reply)]
        assert len(seconds) == 18
        assert all(0 < each <= 86_400 for each in seconds)
        assert all(statuses(ask(service, CAMERA)) == [200] for _ in range(30))
        assert service.get("/readyz")[0] == service.get("/livez")[0] == 200
        text = service.get("/metrics")[1]
        assert 'patchserve_key_requests_total{key="shop",verdict="rate_limited"} 18.0' in text
        assert 'patchserve_requests_total{outcome="unauthorized",route="/classify"} 1.0' in text


def test_a_refusal_asks_for_no_body_and_leaves_the_connection_usable(artifact: Path, keys: Path) -> None:
    with served(artifact, api_keys_file=keys) as service:
        huge = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
        received = service.say(huge, wait_s=1)
        assert statuses(received) == [401]
        assert b"100 Continue" not in received
        with service.connect() as conversation:
            conversation.send(request(None)[:-10])
            assert statuses(conversation.reply()) == [401]
            conversation.send(request(None)[-10:] + request(CAMERA))
            assert statuses(conversation.reply()) == [200]


def test_pipelined_requests_are_judged_each_by_its_own_key(artifact: Path, keys: Path) -> None:
    with served(artifact, api_keys_file=keys) as service, service.connect() as conversation:
        conversation.send(request(CAMERA) + request(None) + request(CAMERA) + request(b"wrong"))
        assert read_replies(conversation, 4) == [200, 401, 200, 401]


def read_replies(conversation: Conversation, count: int) -> list[int]:
    received = b""
    while len(statuses(received)) < count or not received.endswith(b"}"):
        chunk = conversation.socket.recv(65536)
        assert chunk
        received += chunk
    return statuses(received)


def test_a_key_in_trailers_is_none(artifact: Path, keys: Path) -> None:
    chunk = b"%x\r\n" % len(RED) + RED + b"\r\n0\r\nX-API-Key: " + CAMERA + b"\r\n\r\n"
    head = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served(artifact, api_keys_file=keys) as service, service.connect() as conversation:
        conversation.send(head + chunk)
        assert statuses(conversation.reply()) == [401]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_wrong_file_is_one_line(tmp_path: Path, artifact: Path, processes: int) -> None:
    (tmp_path / "keys").write_text("shop:user:patchserve_oops")
    flags = [f"--http-workers={processes}", f"--api-keys-file={tmp_path / 'keys'}"]
    ended = subprocess.run(
        [*COMMAND, "serve", str(artifact), *flags],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert re.fullmatch(r"patchserve: .*keys line 1: a hash has .*\n", ended.stderr)
    assert "oops" not in ended.stderr


def test_the_log_of_a_service_has_names_and_no_keys(artifact: Path, keys: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        flags = ["--port=0", "--http-workers=2", "--log-format=json", f"--api-keys-file={keys}"]
        command = [*COMMAND, "serve", str(artifact), *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment())
        try:
            service = ServedProcess(process)
            for key in (SHOP, b"patchserve_wrong", None):
                ask(service, key)
            service.say(b"POST /models/m/reload HTTP/1.1\r\nHost: t\r\nX-API-Key: " + SHOP + b"\r\n\r\n", wait_s=1)
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()
            process.communicate()
    text = (tmp_path / "log").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    names = [str(each.get("key")) for each in events if each["event"] == "request"]
    assert sorted(names) == ["None", "None", "shop", "shop"]
    [audit] = [each for each in events if each["event"] == "admin_call"]
    assert (audit["key"], audit["route"], audit["outcome"]) == ("shop", "/models/{name}/reload", "forbidden")
    assert "patchserve_" not in text
