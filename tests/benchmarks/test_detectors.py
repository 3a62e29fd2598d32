"""Negative controls: what the long runs look for is found when it is there."""

import asyncio
import json

import pytest

from benchmarks.arrivals import LOST, Answer, Answers, Pool, constant, send_at
from benchmarks.drains import drain  # noqa: F401 - the module must import without a service
from benchmarks.fits import slope
from benchmarks.overload import Stretch, missed, recovery_s
from benchmarks.soak import as_expected, verdict

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
    assert missed([half, stretch(10, answered(100))], 1.0) == []
    [wrong] = missed([half, stretch(10, top)], 1.0)
    assert goal in wrong


def test_slow_probes_and_a_late_recovery_are_told() -> None:
    assert len(missed([stretch(1, answered(100), answered(5, latency_s=0.2))], 3.0)) == 2
    bad = [Answer(0.2 * each, 0.05, 429 if each < 11 else 200) for each in range(50)]
    assert recovery_s(stretch(0.5, bad), 0.1) == 2.5
    assert recovery_s(stretch(0.5, answered(100, 429)), 0.1) == float("inf")


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
