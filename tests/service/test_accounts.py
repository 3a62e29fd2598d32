import io
import json
from typing import Any

from service.accounts import SlowLog, Upload
from service.errors import DeadlineExceeded
from service.logs import LossyStream, open_log
from service.pipeline import Job
from service.replies import Timing
from service.settings import LogSettings

TIMING = Timing(upload=1.0, decode=2.0, preprocess=3.0, queue=4.0, inference=5.0, total=1500.0)
SCOPE = {"state": {"request_id": "mine"}, "path": "/secret"}
UPLOADED_S = 100.0


class Bench:
    def __init__(self, slow_s: float = 1.0) -> None:
        self._text = io.StringIO()
        self._slow = SlowLog(open_log(LogSettings(), LossyStream(self._text), is_terminal=False), slow_s)

    def tell(self, took_s: float, *jobs: Job, now_s: float | None = None) -> None:
        end_s = UPLOADED_S + took_s if now_s is None else now_s
        self._slow.tell(SCOPE, TIMING, jobs, Upload(end_s - took_s, 4096, 77), end_s)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._text.getvalue().splitlines()]


def test_a_slow_request_tells_what_it_did() -> None:
    bench = Bench()
    bench.tell(1.5, Job(grid=(2, 3)), Job(grid=(4, 4), error=DeadlineExceeded()))
    [line] = bench.lines
    expected = {
        "level": "warning",
        "event": "slow_request",
        "request_id": "mine",
        "route": "unmatched",
        "milliseconds": {"upload": 1, "decode": 2, "preprocess": 3, "queue": 4, "inference": 5, "total": 1500},
        "images": 2,
        "patches": 22,
        "bytes": 4096,
        "grids": ["2x3", "4x4"],
        "batch_images": 0,
        "queue_patches": 77,
        "errors": ["deadline_exceeded"],
        "unlogged": 0,
    }
    assert line | expected == line


def test_what_is_in_time_is_not_told() -> None:
    bench, off = Bench(), Bench(slow_s=0)
    bench.tell(0.99)
    off.tell(60.0)
    assert bench.lines == off.lines == []


def test_a_flood_is_five_lines_a_second_and_the_next_line_counts_the_rest() -> None:
    bench = Bench()
    for _ in range(20):
        bench.tell(2.0, now_s=50.0)
    assert len(bench.lines) == 5
    bench.tell(2.0, now_s=51.0)
    bench.tell(2.0, now_s=51.1)
    assert [line["unlogged"] for line in bench.lines[5:]] == [15, 0]
