"""Requests while decoders crash, hang or are killed."""

import asyncio
import functools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faulty_decoder
import pytest
import served_process
from faulty_decoder import command
from served_process import ServedProcess, served, statuses

from benchmarks.served import family
from model.headers import InvalidImage
from service.decoding import opening, processes
from service.decoding.steps import decode_and_cut
from service.decoding.threads import ThreadDecoder

from .conftest import Serving, picture
from .test_classify import classify, metrics, problem

pytestmark = pytest.mark.anyio
RED = picture()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WORKER", "faulty_decoder")


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


async def test_both_kinds_of_isolation_answer_alike(serving: Serving, red: bytes, blue: bytes) -> None:
    answers = []
    for isolation in ("thread", "process"):
        async with serving(decode_isolation=isolation, decode_threads=1) as client:
            answers.append((await classify(client, red, b"no image", blue, blue[:-20])).json()["results"])
    assert answers[0] == answers[1]


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("width", "losses"),
    [
        (faulty_decoder.ABORT, {"crashed": 1}),
        (faulty_decoder.HANG, {"timeout": 1}),
        (faulty_decoder.KILL, {"killed": 2}),
        (faulty_decoder.EAT, {}),
    ],
)
async def test_what_breaks_a_decoder_fails_alone(serving: Serving, width: int, losses: dict[str, int]) -> None:
    """D37, D38, I18, D39: 422 for that image, its mates of the request and of the service are answered."""
    async with serving(
        decode_isolation="process", decode_threads=2, decode_timeout_s=3.0, default_timeout_ms=20_000
    ) as client:
        broken = asyncio.create_task(classify(client, command(width)))
        mixed = asyncio.create_task(classify(client, RED, command(width), RED))
        for _ in range(20):
            assert (await classify(client, RED)).status_code == 200
        assert problem(await broken) == (422, "invalid_image")
        results = (await mixed).json()["results"]
        assert ["error" in result for result in results] == [False, True, False]
        assert results[1]["error"]["code"] == "invalid_image"
        assert (await classify(client, RED)).status_code == 200
        seen = await metrics(client)
    lost = {key[1]: value for key, value in seen.items() if key[0] == "decode_workers_lost_total"}
    assert lost == {reason: 2.0 * count for reason, count in losses.items()}
    assert seen["decode_inflight",] == 0
    assert not [key for key in seen if key[0] == "requests_total" and "internal" in key]


@pytest.mark.usefixtures("faulty")
async def test_the_deadline_bounds_the_wait_and_what_is_not_waited_for_is_not_decoded(serving: Serving) -> None:
    async with serving(decode_isolation="process", decode_threads=1, decode_timeout_s=2.0) as client:
        hung = asyncio.create_task(classify(client, command(faulty_decoder.HANG), query="?timeout_ms=200"))
        queued = [
            asyncio.create_task(classify(client, command(faulty_decoder.ABORT), query="?timeout_ms=200"))
            for _ in range(3)
        ]
        assert problem(await hung) == (504, "deadline_exceeded")
        for each in queued:
            assert problem(await each) == (504, "deadline_exceeded")
        assert (await classify(client, RED, query="?timeout_ms=20000")).status_code == 200
        seen = await metrics(client)
    lost = {key[1]: value for key, value in seen.items() if key[0] == "decode_workers_lost_total"}
    assert lost == {"timeout": 1}


@pytest.mark.usefixtures("faulty")
async def test_a_bug_of_the_decoder_is_500_and_logged_and_costs_no_worker(
    serving: Serving, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(decode_isolation="process", decode_threads=1) as client:
        assert problem(await classify(client, command(faulty_decoder.BUG))) == (500, "internal")
        seen = await metrics(client)
    assert "a planted bug" in capfd.readouterr().err
    assert seen["decode_workers",] == 1


async def test_a_hung_thread_holds_nobody_and_the_loss_of_all_is_shown(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    now_s = [0.0]

    def decode(data: bytes, header: Any, *rest: Any, **how: Any) -> Any:
        if header.width == faulty_decoder.HANG:
            assert let_go.wait(20)
        return decode_and_cut(data, header, *rest, **how)

    class Faulty(ThreadDecoder):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named, clock=lambda: now_s[0], decode=decode)

    monkeypatch.setattr(opening, "ThreadDecoder", Faulty)
    hang = command(faulty_decoder.HANG)
    async with serving(decode_threads=2) as client:
        mixed = asyncio.create_task(classify(client, RED, hang, query="?timeout_ms=200"))
        assert (await classify(client, RED)).status_code == 200
        first = (await mixed).json()["results"][1]
        assert first["error"]["code"] == "deadline_exceeded"
        now_s[0] += 100
        assert (await client.get("/readyz")).status_code == 200
        assert problem(await classify(client, hang, query="?timeout_ms=200")) == (504, "deadline_exceeded")
        now_s[0] += 100
        assert (await client.get("/readyz")).status_code == 503
        assert problem(await classify(client, RED)) == (503, "not_ready")
        let_go.set()
        async with asyncio.timeout(20):
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - a probe tells nobody
                await asyncio.sleep(0.01)
        assert (await classify(client, RED)).status_code == 200


async def test_the_loop_decodes_a_quick_image_itself_and_threads_everything_else(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, places = threading.get_ident(), []

    def decode(data: bytes, *rest: Any, **how: Any) -> Any:
        places.append(threading.get_ident())
        if data == cut_off:
            raise InvalidImage("cut off")
        return decode_and_cut(data, *rest, **how)

    quick = picture(kind="JPEG")
    cut_off = picture((1, 2, 3), kind="JPEG")

    class Recording(ThreadDecoder):
        __init__ = functools.partialmethod(ThreadDecoder.__init__, decode=decode)  # type: ignore[assignment]

    monkeypatch.setattr(opening, "ThreadDecoder", Recording)
    async with serving(max_pixels_in_flight=1) as client:
        assert (await classify(client, quick)).status_code == 200
        assert problem(await classify(client, cut_off)) == (422, "invalid_image")
        assert places == [here, here], "and without a share of the pixels, which the loop could not wait for"
        assert (await classify(client, RED)).status_code == 200
        assert (await classify(client, quick, quick)).status_code == 200
        seen = await metrics(client)
    assert len(places) == 5
    assert here not in places[2:]
    assert seen["decode_inflight",] == 0


# --- a live server --------------------------------------------------------------------------------------------------
def below(pid: int) -> list[int]:
    """All processes under one."""
    return family(pid)[1:]


def workers(pid: int) -> list[int]:
    """The decode workers under a process."""
    return [each for each in below(pid) if b"service.decoding" in Path(f"/proc/{each}/cmdline").read_bytes()]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def restarted(service: ServedProcess) -> bool:
    """A process that ends resets the connections that nobody has taken."""
    try:
        return metric(service, "process_restarts") == 1
    except OSError:
        return False


def metric(service: ServedProcess, name: str) -> float:
    found = re.search(rf"^patchserve_{re.escape(name)} (\S+)$", service.get("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def request(body: bytes, query: str = "?timeout_ms=20000") -> bytes:
    head = f"POST /classify{query} HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Load:
    """Clients, each with one request at a time, and the statuses that they got.

    Each request has a connection of its own: the system may give all of a few lasting ones to the same process.
    """

    def __init__(self, service: ServedProcess, clients: int) -> None:
        self.statuses: list[int] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(service,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, service: ServedProcess) -> None:
        while not self._over.is_set():
            with service.connect() as conversation:
                conversation.socket.settimeout(30)
                conversation.send(request(RED))
                self.statuses += statuses(conversation.reply()) or [0]

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        enough = len(self.statuses) + count
        until(lambda: len(self.statuses) >= enough, 30)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("http_workers", [1, 2])
def test_a_killed_worker_under_load_is_replaced_and_costs_no_request(artifact: Path, http_workers: int) -> None:
    with served(artifact, decode_isolation="process", decode_threads=2, http_workers=http_workers) as service:
        number = 2 * http_workers
        assert len(workers(service.process.pid)) == number
        load = Load(service, 4)
        try:
            for round_ in range(1, 4):
                load.more(20)
                victim = workers(service.process.pid)[0]
                os.kill(victim, signal.SIGKILL)
                until(lambda count=round_: metric(service, 'decode_workers_lost_total{reason="killed"}') >= count)
                until(lambda: metric(service, "decode_workers") == number)
                assert state(victim) == "gone"
                load.more(20)
        finally:
            load.end()
        assert set(load.statuses) == {200}
        left = workers(service.process.pid)
        assert len(left) == number
        service.process.terminate()
        assert service.process.wait(15) == 0
        until(lambda: all(state(pid) == "gone" for pid in left))


@pytest.mark.parametrize("http_workers", [1, 2])
def test_workers_end_with_a_parent_that_is_killed(artifact: Path, http_workers: int) -> None:
    with served(artifact, decode_isolation="process", decode_threads=2, http_workers=http_workers) as service:
        left = workers(service.process.pid)
        assert len(left) == 2 * http_workers
        for parent in {parent_of(pid) for pid in left}:
            os.kill(parent, signal.SIGKILL)
        until(lambda: all(state(pid) in {"gone", "Z"} for pid in left))


@pytest.fixture
def faulty_service(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys; sys.path.append('tests'); from faulty_decoder import serve; serve()"
    monkeypatch.setattr(served_process, "COMMAND", [sys.executable, "-c", program])


def ask(service: ServedProcess, body: bytes, query: str = "?timeout_ms=20000") -> bytes:
    with service.connect() as conversation:
        conversation.socket.settimeout(30)
        conversation.send(request(body, query))
        return conversation.reply()


@pytest.mark.usefixtures("faulty_service")
@pytest.mark.parametrize("http_workers", [1, 2])
def test_images_that_break_decoders_under_load_are_refused_and_nobody_else_is(
    artifact: Path, http_workers: int
) -> None:
    """D37 and D38 through a live service."""
    with served(
        artifact, decode_isolation="process", decode_threads=2, http_workers=http_workers, decode_timeout_s=3
    ) as service:
        load = Load(service, 3)
        try:
            for width in (faulty_decoder.ABORT, faulty_decoder.HANG, faulty_decoder.EXIT):
                reply = ask(service, command(width))
                assert (statuses(reply), b'"code":"invalid_image"' in reply) == ([422], True)
                load.more(10)
        finally:
            load.end()
        assert set(load.statuses) == {200}
        assert metric(service, 'decode_workers_lost_total{reason="crashed"}') == 2
        assert metric(service, 'decode_workers_lost_total{reason="timeout"}') == 1
        until(lambda: metric(service, "decode_workers") == 2 * http_workers)


@pytest.mark.usefixtures("faulty_service")
def test_with_the_default_limits_a_hang_is_the_fault_of_the_image(artifact: Path) -> None:
    with served(artifact, decode_isolation="process") as service:
        assert statuses(ask(service, command(faulty_decoder.HANG), query="")) == [422]


@pytest.mark.usefixtures("faulty_service")
def test_a_hung_thread_does_not_hold_the_exit(artifact: Path) -> None:
    with served(artifact, decode_threads=2, drain_delay_s=0.1) as service:
        assert statuses(ask(service, command(faulty_decoder.HANG), query="?timeout_ms=200")) == [504]
        assert statuses(ask(service, RED)) == [200]
        service.process.terminate()
        assert service.process.wait(10) == 0


@pytest.mark.usefixtures("faulty_service")
def test_the_only_process_ends_when_all_its_threads_hang(artifact: Path) -> None:
    """With status 1, for whoever restarts it; what is already decoded would still be answered."""
    with served(artifact, decode_threads=2, decode_timeout_s=0.1, drain_delay_s=2) as service:
        assert statuses(ask(service, command(faulty_decoder.HANG), query="?timeout_ms=200")) == [504]
        assert statuses(ask(service, RED)) == [200]
        assert statuses(ask(service, command(faulty_decoder.HANG), query="?timeout_ms=200")) == [504]
        until(lambda: service.get("/readyz")[0] == 503)
        assert b'"not_ready"' in ask(service, RED)
        assert service.get("/livez")[0] == 200
        assert service.process.wait(15) == 1


@pytest.mark.usefixtures("faulty_service")
def test_one_of_several_processes_is_replaced_when_all_its_threads_hang(artifact: Path) -> None:
    with served(artifact, http_workers=2, decode_threads=1, decode_timeout_s=0.1) as service:
        assert statuses(ask(service, command(faulty_decoder.HANG), query="?timeout_ms=200")) == [504]
        until(lambda: restarted(service))
        until(lambda: metric(service, "http_processes_up") == 2)
        assert {statuses(ask(service, RED))[0] for _ in range(12)} == {200}
        service.process.terminate()
        assert service.process.wait(15) == 0


def test_signals_to_the_whole_group_leave_the_workers_to_the_drain(artifact: Path) -> None:
    with served(artifact, decode_isolation="process", decode_threads=1, drain_delay_s=1.0) as service:
        for pid in workers(service.process.pid):
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        service.process.terminate()
        with service.connect() as conversation:
            conversation.send(request(RED))
            assert statuses(conversation.reply()) == [200]
        assert service.process.wait(10) == 0
