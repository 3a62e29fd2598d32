import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import faulty_decoder
import numpy as np
import pytest
from faulty_decoder import command
from numpy.typing import NDArray
from PIL import Image
from tiny_artifact import MANIFEST

from model.headers import ImageLimits, InvalidImage, read_header
from model.preprocess import PatchSequence, choose_grid, preprocess
from service.decoding import processes
from service.decoding.messages import Request, pack_request
from service.decoding.processes import DecoderBugError, ProcessDecoder, decode_memory_bytes
from service.errors import DeadlineExceeded, Draining, StartError
from service.settings import ImageSettings

SPEC = MANIFEST.preprocessing
FILE_BYTES = 1_000_000
GOOD = command(40)


class Observer:
    def __init__(self) -> None:
        self.ready = threading.Semaphore(0)
        self.lost: list[tuple[str, int]] = []
        self.not_started = threading.Semaphore(0)

    def worker_ready(self) -> None:
        self.ready.release()

    def worker_lost(self, loss: str, status: int) -> None:
        self.lost.append((loss, status))

    def worker_not_started(self, reason: str) -> None:
        self.not_started.release()


class Opened:
    """A decoder, and what became of its workers."""

    def __init__(self, workers: int, settings: dict[str, Any]) -> None:
        self.observer = Observer()
        self.decoder = ProcessDecoder(ImageSettings(**settings), SPEC, FILE_BYTES, workers, self.observer)

    def decode(self, data: bytes, wait_s: float = 30.0) -> PatchSequence:
        header = read_header(data, ImageLimits())
        grid = choose_grid(*header.upright_size, SPEC)

        def place() -> NDArray[np.uint8]:
            return np.empty((grid[0] * grid[1], SPEC.patch_dim), np.uint8)

        return self.decoder.decode(data, header, grid, place, time.monotonic() + wait_s).sequence

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.decoder._all]

    def await_ready(self) -> None:
        assert self.observer.ready.acquire(timeout=20)


@contextmanager
def opened(workers: int = 1, **settings: Any) -> Iterator[Opened]:
    each = Opened(workers, settings)
    each.decoder.open()
    for _ in range(workers):
        each.await_ready()
    try:
        yield each
    finally:
        each.decoder.close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WORKER", "faulty_decoder")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def exists(pid: int) -> bool:
    """Whether there is such a process, if only as a zombie."""
    return Path(f"/proc/{pid}").exists()


def test_the_patches_are_those_of_the_one_path() -> None:
    with opened() as each:
        for kind, size in (("JPEG", (640, 480)), ("PNG", (33, 90)), ("WEBP", (50, 50))):
            file = BytesIO()
            noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
            Image.fromarray(noise).save(file, kind)
            sequence = each.decode(file.getvalue())
            expected = preprocess(file.getvalue(), SPEC, ImageLimits())
            assert np.array_equal(sequence.patches, expected.patches)
            assert (sequence.grid, sequence.width, sequence.height, sequence.format) == (
                expected.grid,
                expected.width,
                expected.height,
                expected.format,
            )
        assert not each.decoder.quick(file.getvalue(), read_header(file.getvalue(), ImageLimits()))
        assert each.observer.lost == []


def test_a_bad_image_costs_no_worker() -> None:
    with opened() as each:
        before = each.pids()
        with pytest.raises(InvalidImage):
            each.decode(GOOD[:-20])
        assert len(each.decode(GOOD).patches)
        assert each.pids() == before


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("width", "loss", "status"),
    [
        (faulty_decoder.ABORT, "crashed", -signal.SIGABRT),
        (faulty_decoder.EXIT, "crashed", 3),
        (faulty_decoder.HANG, "timeout", -signal.SIGKILL),
    ],
)
def test_an_image_that_breaks_its_worker_is_refused_once_and_the_worker_replaced(
    width: int, loss: str, status: int
) -> None:
    with opened(decode_timeout_s=2.0 if loss == "timeout" else 30) as each:
        (before,) = each.pids()
        with pytest.raises(InvalidImage):
            each.decode(command(width))
        assert each.observer.lost == [(loss, status)]
        assert not exists(before)
        each.await_ready()
        assert len(each.decode(GOOD).patches)
        assert len(each.observer.lost) == 1


@pytest.mark.usefixtures("faulty")
def test_others_go_on_while_one_hangs_and_nobody_waits_for_the_new_worker() -> None:
    with opened(workers=2, decode_timeout_s=3.0) as each, ThreadPoolExecutor(1) as thread:
        hung = thread.submit(each.decode, command(faulty_decoder.HANG))
        while not each.observer.lost:
            assert len(each.decode(GOOD, wait_s=2.9).patches)
        with pytest.raises(InvalidImage):
            hung.result()
        assert len(each.decode(GOOD, wait_s=2.9).patches)


@pytest.mark.usefixtures("faulty")
def test_who_gets_no_worker_in_time_is_late() -> None:
    with opened(decode_timeout_s=30) as each, ThreadPoolExecutor(1) as thread:
        hung = thread.submit(each.decode, command(faulty_decoder.HANG))
        while not each.decoder._free.empty():
            time.sleep(0.001)
        with pytest.raises(DeadlineExceeded):
            each.decode(GOOD, wait_s=0.1)
        each.decoder.close()
        assert isinstance(hung.exception(timeout=5), Draining)


@pytest.mark.usefixtures("faulty")
def test_the_end_wakes_who_waits_for_a_worker() -> None:
    with opened(decode_timeout_s=30) as each, ThreadPoolExecutor(2) as threads:
        images = command(faulty_decoder.HANG), GOOD
        waiting = [threads.submit(each.decode, image) for image in images]
        while not each.decoder._free.empty():
            time.sleep(0.001)
        each.decoder.close()
        assert all(isinstance(each.exception(timeout=5), Draining) for each in waiting)


def test_a_worker_that_somebody_killed_costs_no_image() -> None:
    with opened() as each:
        (before,) = each.pids()
        os.kill(before, signal.SIGKILL)
        assert len(each.decode(GOOD).patches)
        assert each.observer.lost == [("killed", -signal.SIGKILL)]
        assert not exists(before)


@pytest.mark.usefixtures("faulty")
def test_an_image_whose_workers_are_killed_twice_is_refused() -> None:
    with opened() as each:
        with pytest.raises(InvalidImage):
            each.decode(command(faulty_decoder.KILL))
        assert each.observer.lost == [("killed", -signal.SIGKILL)] * 2
        assert len(each.decode(GOOD).patches)


@pytest.mark.usefixtures("faulty")
def test_memory_over_the_limit_is_refused_and_the_worker_lives() -> None:
    with opened() as each:
        before = each.pids()
        with pytest.raises(InvalidImage):
            each.decode(command(faulty_decoder.EAT))
        assert len(each.decode(GOOD).patches)
        assert each.pids() == before


def test_a_real_image_over_the_memory_limit_is_refused() -> None:
    large = command(3000, 3000)  # 36 MB of pixels in a file of 30 kB
    with opened(decode_memory_bytes=20_000_000) as each:
        with pytest.raises(InvalidImage):
            each.decode(large)
        assert len(each.decode(GOOD).patches)
        assert each.observer.lost == []
    with opened() as each:
        assert len(each.decode(large).patches)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("width", [faulty_decoder.BUG, faulty_decoder.LIE])
def test_a_bug_is_told_and_the_worker_lives(width: int) -> None:
    with opened() as each:
        before = each.pids()
        with pytest.raises(DecoderBugError, match="a planted bug" if width == faulty_decoder.BUG else "no sense"):
            each.decode(command(width))
        assert len(each.decode(GOOD).patches)
        assert each.pids() == before


@pytest.mark.usefixtures("faulty")
def test_a_hung_worker_ends_by_itself_when_nobody_is_there_to_kill_it() -> None:
    with opened(decode_timeout_s=0.1) as each:
        worker = each.decoder._take(time.monotonic() + 1)
        image = command(faulty_decoder.HANG)
        request = Request(len(image), read_header(image, ImageLimits()), (7, 7))
        worker.end.send(pack_request(request))
        assert worker.process.wait(20) == -signal.SIGALRM
        each.decoder._give_back(worker)


def test_a_worker_is_expendable_and_bounded() -> None:
    with opened(decode_memory_bytes=123_000_000) as each:
        (pid,) = each.pids()
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max core file size        0 " in limits
        space = int(limits.split("Max address space")[1].split()[0])
        assert 123_000_000 < space < 1_500_000_000


def test_the_end_leaves_nothing() -> None:
    before = descriptors()
    with opened(workers=2) as each:
        pids = each.pids()
        os.kill(pids[0], signal.SIGKILL)
        for _ in range(4):
            each.decode(GOOD)
        each.await_ready()
        pids += each.pids()
    assert len(set(pids)) == 3
    assert not any(exists(pid) for pid in pids)
    assert descriptors() == before


def test_a_worker_that_is_not_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as each:
        assert each.decoder.able()
        with monkeypatch.context() as broken:
            broken.setattr(processes, "WORKER", "no_such_module")
            os.kill(each.pids()[0], signal.SIGKILL)
            with pytest.raises(DeadlineExceeded):
                each.decode(GOOD, wait_s=0.5)
            assert each.observer.not_started.acquire(timeout=20)
            assert not each.decoder.able()
        each.await_ready()
        assert each.decoder.able()
        assert len(each.decode(GOOD).patches)


def test_workers_that_do_not_start_end_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "WORKER", "no_such_module")
    each = Opened(2, {})
    with pytest.raises(StartError, match="a decode worker could not be started"):
        each.decoder.open()
    assert each.pids() == []


def test_a_file_over_the_promised_size_costs_no_worker() -> None:
    with opened() as each:
        with pytest.raises(ValueError, match="have room"):
            each.decode(GOOD + bytes(FILE_BYTES))
        assert len(each.decode(GOOD).patches)


def test_the_default_memory_follows_the_limits() -> None:
    assert decode_memory_bytes(50_000_000, 10_485_760) > 16 * 50_000_000
    assert decode_memory_bytes(1_000_000, 10_485_760) < 200_000_000
