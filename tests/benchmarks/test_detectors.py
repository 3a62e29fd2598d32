"""Negative controls: what the long runs look for is found when it is there.

First verdicts on made-up observations, then whole runs, in short, against a service with a planted fault.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tiny_artifact import write_artifact

from benchmarks.arrivals import LOST, Answer, Answers, Pool, constant, send_at
from benchmarks.drains import drain
from benchmarks.fits import slope
from benchmarks.images import make_jpegs
from benchmarks.load import request_of
from benchmarks.overload import Round, Stretch, missed, recovery_s
from benchmarks.served import serve
from benchmarks.soak import as_expected, growth, leaks, soak, verdict

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


def stretch(load: float, answers: list[Answer], probes: list[Answer] | None = None) -> Stretch:
    return Stretch(load, 10.0, 2.0, 2.0, 0.0, Answers(answers, [0.0] * len(answers)), Answers(probes or []))


def answered(number: int, status: int = 200, latency_s: float = 0.05) -> list[Answer]:
    return [Answer(10 * each / number, latency_s, status) for each in range(number)]


@pytest.mark.parametrize(
    ("top", "goal"),
    [
        (answered(94), "goodput"),
        (answered(100) + answered(50, 429, 0.5), "refusals"),
        (answered(100) + answered(1, 504), "5xx"),
        (answered(100) + answered(1, LOST), "lost"),
        (answered(100, latency_s=2.5), "goodput"),
    ],
)
def test_an_overload_that_goes_wrong_is_told(top: list[Answer], goal: str) -> None:
    half = stretch(1, answered(100), answered(20))
    assert missed([Round([half, stretch(10, answered(100))], 1.0)]) == []
    [wrong] = missed([Round([half, stretch(10, top)], 1.0)])
    assert goal in wrong


def test_slow_probes_and_a_late_recovery_are_told() -> None:
    assert len(missed([Round([stretch(1, answered(100), answered(5, latency_s=0.2))], 3.0)])) == 2
    bad = [Answer(0.2 * each, 0.05, 429 if each < 11 else 200) for each in range(50)]
    assert recovery_s(stretch(0.5, bad), 0.1) == 2.5
    assert recovery_s(stretch(0.5, answered(100, 429)), 0.1) == float("inf")


def test_of_several_rounds_goodput_counts_by_its_median_and_everything_else_by_the_worst() -> None:
    def measured(goodput: int, recovered_s: float = 1.0) -> Round:
        return Round([stretch(1, answered(100), answered(20)), stretch(10, answered(goodput))], recovered_s)

    assert missed([measured(100), measured(60), measured(96)]) == []
    assert len(missed([measured(60), measured(60), measured(96)])) == 1
    assert len(missed([measured(100), measured(100, 2.0), measured(100)])) == 1


async def _half_a_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    await writer.drain()
    writer.close()


def test_a_request_whose_reply_is_cut_off_is_lost() -> None:
    async def play() -> Answers:
        seen = Answers()
        async with await asyncio.start_server(_half_a_reply, "127.0.0.1", 0) as server:
            pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1], seen)
            await send_at(pool, constant(1000, 0.003), [GET])
            await pool.settle(5.0)
        return seen

    seen = asyncio.run(play())
    assert [(each.status, each.sent) for each in seen.answers] == [(LOST, True)] * 3


def test_a_swapped_result_and_a_wrong_code_are_told() -> None:
    body = json.dumps({"results": [{"predictions": [{"label": "red", "score": 0.9}]}]}).encode()
    assert as_expected("red 0.9000", verdict(200, body))
    assert not as_expected("blue 0.9000", verdict(200, body))
    assert not as_expected("invalid_image", verdict(200, body))
    assert not as_expected("invalid_image", verdict(500, b'{"code": "internal"}'))
    assert not as_expected("red 0.9000", verdict(0, b""))


def test_a_leak_has_a_slope() -> None:
    hours = [each / 360 for each in range(300)]
    leaking, error = slope(hours, [300 + 5 * hour + (each % 7) for each, hour in enumerate(hours)])
    assert leaking > 4 * error
    assert leaking == pytest.approx(5, abs=1)


def test_memory_that_stands_is_no_leak() -> None:
    samples = [(10.0 * each, 300 + each % 7) for each in range(300)]
    assert not leaks(growth(samples)[1], most=1.0)
    assert leaks(growth([(seconds, megabytes + seconds / 600) for seconds, megabytes in samples])[1], most=1.0)
    warming_up = [(seconds, megabytes + min(seconds / 10, 60)) for seconds, megabytes in samples]
    assert not leaks(growth(warming_up)[1], most=1.0)
    given_back = [(seconds, megabytes - 8 * (1000 < seconds < 1200)) for seconds, megabytes in samples]
    assert not leaks(growth(given_back)[1], most=1.0)


# --- faults planted in a service --------------------------------------------------------------------------------------
_RATE = 40  # requests a second
_LEAK_MB_PER_HOUR = _RATE * 0.2 * 3600
FAULTY = "import sys; sys.path.append('tests'); from faulty_service import main; main()"


def program(fault: str) -> list[str]:
    return [sys.executable, "-c", FAULTY, fault]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.mark.long
@pytest.mark.parametrize("fault", ["none", "lose"])
def test_a_service_that_loses_requests_is_told_by_a_drain(artifact: Path, fault: str) -> None:
    requests = [request_of(image, "localhost", "/classify?timeout_ms=5000") for image in make_jpegs(64, 64)]
    with serve(artifact, [], program(fault)) as served:
        seen: dict[str, Any] = uvloop.run(drain(served, 100, requests, 0))
        assert os.waitstatus_to_exitcode(os.waitpid(served.pid, 0)[1]) == 0
    assert seen["statuses"]["200"] > 100
    assert (seen["lost"] > 0) == (fault == "lose")


def soaked(artifact: Path, fault: str) -> tuple[Counter[str], list[tuple[float, float]]]:
    with serve(artifact, ["--default-timeout-ms", "20000"], program(fault)) as served:
        return asyncio.run(soak(served, _RATE, 6, None, interval_s=0.25))


@pytest.mark.long
def test_a_healthy_service_gets_through_the_soak(artifact: Path) -> None:
    seen, samples = soaked(artifact, "none")
    assert seen["200"] > 100
    assert (seen["wrong"], seen["0"]) == (0, 0)
    assert not leaks(growth(samples)[1], _LEAK_MB_PER_HOUR / 3)  # it may still be warming up


@pytest.mark.long
def test_a_service_that_swaps_names_is_told_by_the_soak(artifact: Path) -> None:
    seen, _ = soaked(artifact, "swap")
    assert seen["wrong"] > 0


@pytest.mark.long
def test_a_service_that_loses_requests_is_told_by_the_soak(artifact: Path) -> None:
    seen, _ = soaked(artifact, "lose")
    assert seen["0"] > 0


@pytest.mark.long
def test_a_service_that_leaks_is_told_by_the_soak(artifact: Path) -> None:
    seen, samples = soaked(artifact, "leak")
    assert (seen["wrong"], seen["0"]) == (0, 0)
    assert leaks(growth(samples)[1], _LEAK_MB_PER_HOUR / 3)
