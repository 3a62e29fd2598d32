import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked import ranking_of

from model.preprocess import PatchSequence
from service.batching import BatchLimits, Lanes
from service.errors import (
    DeadlineExceeded,
    DeviceLost,
    DeviceLostError,
    Draining,
    EngineError,
    Internal,
    OutOfMemoryError,
    Overloaded,
)
from service.extras import NOTHING, Answers, Extras
from service.runner import Run
from service.scheduler import BatchReport, Fate, Inference, Scheduler, SchedulerObserver
from service.tracing.references import SpanReference

pytestmark = pytest.mark.anyio

POISON, NOT_A_NUMBER, LOST = 200, 201, 202


def image(name: int, patches: int = 10) -> PatchSequence:
    """An image whose first byte is its name; the fake engine answers with it."""
    return PatchSequence(np.full((patches, 12), name, np.uint8), (1, patches), 2, 2, "PNG")


class FakeEngine:
    """Runs end when the test says so; the clock stands still until the test moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []
        self.extras: list[Extras] = []
        self.open: list[asyncio.Future[None]] = []
        self.immediate = False
        self.sick = False
        self.memory_patches = 10_000

    def clock(self) -> float:
        return self.now_s

    async def run(self, sequences: Sequence[PatchSequence], *, alone: bool, extras: Extras) -> Run:
        names = [int(sequence.patches[0, 0]) for sequence in sequences]
        self.batches.append(names)
        self.alone.append(alone)
        self.extras.append(extras)
        if not self.immediate:
            gate = asyncio.get_running_loop().create_future()
            self.open.append(gate)
            await gate
        if LOST in names:
            raise DeviceLostError("gone")
        if sum(len(sequence.patches) for sequence in sequences) > self.memory_patches:
            raise OutOfMemoryError("full")
        if POISON in names:
            raise EngineError("poisoned")
        rankings = [None if name == NOT_A_NUMBER else ranking_of(name) for name in names]
        shares = np.repeat(np.array(names, np.float32)[:, None], max(len(each.patches) for each in sequences) + 2, 1)
        shares[:] = np.nan if self.sick else shares
        answers = Answers(np.empty((len(names), 0), np.float32), shares[:, :2], shares) if extras else None
        return Run(rankings, seconds=0.5, share_s=0.25, finished_s=self.now_s, answers=answers)

    async def finish(self, place: int = 0) -> None:
        self.open.pop(place).set_result(None)
        await settle()


class Recorder(SchedulerObserver):
    def __init__(self) -> None:
        self.reports: list[BatchReport] = []
        self.fates: list[Fate] = []
        self.limits: list[int] = []
        self.lost = 0

    def batch_ran(self, report: BatchReport) -> None:
        self.reports.append(report)

    def image_left(self, fate: Fate) -> None:
        self.fates.append(fate)

    def batches_limited(self, max_batch_patches: int) -> None:
        self.limits.append(max_batch_patches)

    def device_lost(self, error: DeviceLostError) -> None:
        self.lost += 1
        assert not self.fates, "nobody has been told yet"


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Bench:
    def __init__(self, max_patches: int = 40, max_images: int = 64, lanes: int = 1) -> None:
        self.engine = FakeEngine()
        self.seen = Recorder()
        limits = BatchLimits(max_patches, max_images, overhead_patches=1000)
        self.scheduler = Scheduler(self.engine.run, limits, self.engine.clock, self.seen, Lanes(lanes))

    def submit(self, name: int, patches: int = 10, deadline_s: float = 100.0) -> asyncio.Future[Inference]:
        return self.scheduler.submit(image(name, patches), deadline_s)


async def test_an_idle_engine_takes_what_is_there_at_once() -> None:
    bench = Bench()
    answer = bench.submit(7)
    await settle()
    assert bench.engine.batches == [[7]]
    await bench.engine.finish()
    assert (await answer).ranking.indices[0] == 7
    assert bench.seen.fates == ["answered"]


async def test_images_of_one_turn_share_a_batch() -> None:
    bench = Bench()
    for name in range(3):
        bench.submit(name)
    await settle()
    assert bench.engine.batches == [[0, 1, 2]]


async def test_a_batch_asks_for_what_any_of_its_images_wants_and_each_gets_its_own_wish() -> None:
    bench = Bench()
    bench.engine.immediate = True
    wishes = [Extras.NONE, Extras.EMBEDDING, Extras.ATTENTION]
    asked = [bench.scheduler.submit(image(name, 8 + name), 100.0, wish) for name, wish in enumerate(wishes)]
    await settle()
    assert (bench.engine.batches, bench.engine.extras) == ([[0, 1, 2]], [Extras.EMBEDDING | Extras.ATTENTION])
    nothing, embedded, explained = [(await each).found for each in asked]
    assert nothing == NOTHING
    assert (embedded.embedding.tolist(), embedded.attention) == ([1, 1], None)  # type: ignore[union-attr]
    assert (explained.embedding, explained.attention.tolist()) == (None, [2] * 10)  # type: ignore[union-attr]
    bench.submit(3)
    await settle()
    assert bench.engine.extras[-1] == Extras.NONE


async def test_extras_that_are_no_numbers_fail_who_wanted_them_alone() -> None:
    bench = Bench()
    bench.engine.immediate = bench.engine.sick = True
    plain = bench.submit(1)
    embedded = bench.scheduler.submit(image(2), 100.0, Extras.EMBEDDING)
    await settle()
    assert (await plain).ranking.indices[0] == 1
    with pytest.raises(Internal):
        await embedded


async def test_a_batch_grows_while_the_engine_is_busy() -> None:
    bench = Bench()
    bench.submit(1)
    await settle()
    for name in (2, 3):
        bench.submit(name)
        await settle()
    assert bench.engine.batches == [[1]]
    await bench.engine.finish()
    assert bench.engine.batches == [[1], [2, 3]]


async def test_one_full_batch_is_prepared_while_one_runs_and_no_more() -> None:
    bench = Bench(max_patches=20)
    for name in range(7):
        bench.submit(name)
    await settle()
    assert bench.engine.batches == [[0, 1], [2, 3]]
    await bench.engine.finish()
    assert bench.engine.batches == [[0, 1], [2, 3], [4, 5]]
    await bench.engine.finish()
    assert len(bench.engine.batches) == 3, "a partial batch stays open while the engine is busy"
    await bench.engine.finish()
    assert bench.engine.batches[-1] == [6]


async def test_an_image_whose_deadline_passes_in_the_queue_never_runs() -> None:
    bench = Bench()
    first = bench.submit(1)
    await settle()
    late = bench.submit(2, deadline_s=5.0)
    bench.engine.now_s = 5.0
    await bench.engine.finish()
    with pytest.raises(DeadlineExceeded):
        await late
    assert bench.engine.batches == [[1]]
    assert (await first).ranking.indices[0] == 1


async def test_an_answer_after_the_deadline_is_no_answer() -> None:
    bench = Bench()
    late = bench.submit(1, deadline_s=5.0)
    await settle()
    bench.engine.now_s = 5.5
    await bench.engine.finish()
    with pytest.raises(DeadlineExceeded):
        await late
    assert bench.seen.fates == ["expired"]


async def test_a_cancelled_image_never_runs() -> None:
    bench = Bench()
    bench.submit(1)
    await settle()
    bench.submit(2).cancel()
    bench.submit(3)
    await bench.engine.finish()
    assert bench.engine.batches == [[1], [3]]
    assert sorted(bench.seen.fates) == ["answered", "cancelled"]


async def test_cancelling_a_running_image_leaves_its_mates_alone() -> None:
    bench = Bench()
    gone, stays = bench.submit(1), bench.submit(2)
    await settle()
    gone.cancel()
    await bench.engine.finish()
    assert (await stays).ranking.indices[0] == 2
    assert sorted(bench.seen.fates) == ["answered", "wasted"]


@pytest.mark.parametrize("culprit", range(8))
async def test_only_the_culprit_of_a_failing_batch_fails(culprit: int) -> None:
    bench = Bench(max_patches=1000)
    bench.engine.immediate = True
    answers = [bench.submit(POISON if name == culprit else name) for name in range(8)]
    await settle()
    for name, answer in enumerate(answers):
        if name == culprit:
            with pytest.raises(Internal):
                await answer
        else:
            assert (await answer).ranking.indices[0] == name
    assert len(bench.engine.batches) <= 1 + 2 * 3


async def test_an_engine_that_always_fails_is_not_tried_once_per_image() -> None:
    bench = Bench(max_patches=1000)
    bench.engine.immediate = True
    answers = [bench.submit(POISON) for _ in range(64)]
    await settle()
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert all(isinstance(result, Internal) for result in results)
    assert len(bench.engine.batches) <= 1 + 4 * 6


async def test_the_engine_goes_on_after_a_failure() -> None:
    bench = Bench()
    bench.engine.immediate = True
    with pytest.raises(Internal):
        await bench.submit(POISON)
    assert (await bench.submit(5)).ranking.indices[0] == 5


async def test_logits_that_are_no_numbers_fail_alone() -> None:
    bench = Bench()
    bench.engine.immediate = True
    sick, well = bench.submit(NOT_A_NUMBER), bench.submit(4)
    with pytest.raises(Internal):
        await sick
    assert (await well).ranking.indices[0] == 4
    assert len(bench.engine.batches) == 1


async def test_reports_tell_padding_from_patches() -> None:
    bench = Bench(max_patches=1000)
    bench.engine.immediate = True
    bench.submit(1, patches=10)
    await bench.submit(2, patches=30)
    [report] = bench.seen.reports
    assert (report.images, report.patches, report.padded_patches, report.seconds) == (2, 40, 60, 0.25)


async def test_reports_name_the_spans_of_those_images_that_have_one() -> None:
    bench = Bench(max_patches=1000)
    bench.engine.immediate, bench.engine.now_s = True, 9.0
    bad, good = [SpanReference(bytes(16), bytes([name] * 8)) for name in range(2)]
    bench.scheduler.submit(image(POISON), 100.0, origin=bad)
    bench.submit(3)
    bench.scheduler.submit(image(4), 100.0, origin=good)
    await settle()
    assert (bench.seen.reports[0].failed, bench.seen.reports[0].origins) == (True, (bad, good))
    told = [report for report in bench.seen.reports if not report.failed]
    assert [origin for report in told for origin in report.origins] == [good]
    assert {(report.began_s, report.ended_s) for report in told} == {(8.5, 9.0)}


async def test_with_several_lanes_a_lonely_image_has_all_cores_and_nothing_beside_it() -> None:
    bench = Bench(max_patches=1000, lanes=2)
    bench.submit(0)
    await settle()
    for name in range(1, 8):
        bench.submit(name)
        await settle()
    assert (bench.engine.batches, bench.engine.alone) == ([[0]], [True])
    await bench.engine.finish()
    assert bench.engine.batches[1:] == [[1, 2, 3, 4], [5, 6, 7]]
    assert bench.engine.alone[1:] == [False, False]


async def test_a_lane_that_is_free_takes_what_waits_while_others_run() -> None:
    bench = Bench(max_patches=1000, lanes=3)
    for name in range(5):
        bench.submit(name)
    await settle()
    assert bench.engine.batches == [[0, 1], [2, 3], [4]]
    for name in range(5, 9):
        bench.submit(name)
    await settle()
    assert len(bench.engine.open) == 3, "not more batches than lanes, and none is prepared"
    await bench.engine.finish(place=1)
    assert bench.engine.batches[3:] == [[5, 6, 7, 8]]
    bench.submit(9)
    await bench.engine.finish()
    assert bench.engine.batches[4:] == [[9]]
    assert not any(bench.engine.alone), "nothing has all cores while a lane is busy"


async def test_the_dead_do_not_count_when_the_lanes_are_shared_out() -> None:
    bench = Bench(max_patches=1000, lanes=2)
    late = bench.submit(0, deadline_s=0.0)
    gone = [bench.submit(name) for name in (1, 2)]
    alive = bench.submit(3)
    for future in gone:
        future.cancel()
    await settle()
    assert (bench.engine.batches, bench.engine.alone) == ([[3]], [True])
    await bench.engine.finish()
    assert (await alive).ranking.indices[0] == 3
    with pytest.raises(DeadlineExceeded):
        await late
    assert sorted(bench.seen.fates) == ["answered", "cancelled", "cancelled", "expired"]


@pytest.mark.parametrize("culprit", range(8))
async def test_with_several_lanes_only_the_culprit_fails_and_its_batch_keeps_its_lane(culprit: int) -> None:
    bench = Bench(max_patches=1000, lanes=2)
    answers = [bench.submit(POISON if name == culprit else name) for name in range(8)]
    await settle()
    while bench.engine.open:
        assert len(bench.engine.open) <= 2
        await bench.engine.finish()
    results = await asyncio.gather(*answers, return_exceptions=True)
    for name, result in enumerate(results):
        if name == culprit:
            assert isinstance(result, Internal)
        else:
            assert isinstance(result, Inference)
            assert result.ranking.indices[0] == name
    assert not any(bench.engine.alone)


async def test_parts_of_a_batch_that_failed_alone_run_alone() -> None:
    bench = Bench(max_patches=1000, lanes=4)
    answers = [bench.submit(POISON), bench.submit(1)]
    await settle()
    bench.submit(2)
    bench.submit(3)
    bench.submit(4)
    for _ in range(2):
        await bench.engine.finish()
    assert (bench.engine.batches, bench.engine.alone) == ([[POISON, 1], [POISON], [1]], [True] * 3)
    await bench.engine.finish()
    assert bench.engine.batches[3:] == [[2], [3], [4]]
    assert isinstance((await asyncio.gather(*answers, return_exceptions=True))[0], Internal)


async def test_closing_waits_for_every_lane() -> None:
    bench = Bench(max_patches=1000, lanes=2)
    running = [bench.submit(name) for name in range(4)]
    await settle()
    waiting = bench.submit(4)
    closing = asyncio.ensure_future(bench.scheduler.close())
    await bench.engine.finish()
    assert not closing.done()
    await bench.engine.finish()
    await closing
    assert [(await each).ranking.indices[0] for each in running] == [0, 1, 2, 3]
    with pytest.raises(Draining):
        await waiting


async def test_closing_fails_the_queue_and_ends_the_run() -> None:
    bench = Bench()
    running = bench.submit(1)
    await settle()
    waiting = bench.submit(2)
    closing = asyncio.ensure_future(bench.scheduler.close())
    await settle()
    assert not closing.done()
    await bench.engine.finish()
    await closing
    assert (await running).ranking.indices[0] == 1
    for refused in (waiting, bench.submit(3)):
        with pytest.raises(Draining):
            await refused


events = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 60), st.floats(0.1, 20)),
        st.tuples(st.just("poison"), st.integers(1, 60), st.floats(0.1, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 50), st.just(0.0)),
        st.tuples(st.just("finish"), st.integers(0, 3), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(0), st.floats(0, 5)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(events, st.integers(1, 4))
def test_every_image_ends_exactly_once_and_with_its_own_answer(steps: list[tuple[str, int, float]], lanes: int) -> None:
    async def play() -> None:
        bench = Bench(max_patches=100, max_images=6, lanes=lanes)
        answers: list[tuple[int, asyncio.Future[Inference]]] = []
        for kind, number, seconds in steps:
            if kind in {"submit", "poison"}:
                name = POISON if kind == "poison" else len(answers) % 200
                answers.append((name, bench.submit(name, number, bench.engine.now_s + seconds)))
            elif kind == "cancel" and answers:
                answers[number % len(answers)][1].cancel()
            elif kind == "finish" and bench.engine.open:
                await bench.engine.finish(number % len(bench.engine.open))
            elif kind == "wait":
                bench.engine.now_s += seconds
            assert len(bench.engine.open) <= max(2, lanes)
            await settle()
        while bench.engine.open:
            await bench.engine.finish()
        assert len(bench.seen.fates) == len(answers), "accepted = answered + failed + expired + cancelled + wasted"
        for name, answer in answers:
            assert answer.done()
            if not answer.cancelled() and answer.exception() is None:
                assert answer.result().ranking.indices[0] == name != POISON

    asyncio.run(play())


async def test_a_batch_that_does_not_fit_into_the_memory_is_halved_and_later_ones_are_smaller() -> None:
    bench = Bench()
    bench.engine.immediate, bench.engine.memory_patches = True, 20
    answers = [bench.submit(name) for name in range(4)]
    await settle()
    assert [(await answer).ranking.indices[0] for answer in answers] == [0, 1, 2, 3]
    assert bench.engine.batches == [[0, 1, 2, 3], [0, 1], [2, 3]]
    assert bench.seen.limits == [20]
    for name in range(4):
        bench.submit(name)
    await settle()
    assert bench.engine.batches[3:] == [[0, 1], [2, 3]]


async def test_batches_grow_again_after_a_while() -> None:
    bench = Bench()
    bench.engine.immediate, bench.engine.memory_patches = True, 10
    for name in range(4):
        bench.submit(name)
    await settle()
    assert bench.seen.limits[-1] == 10
    bench.engine.memory_patches = 10_000
    for _ in range(3):
        bench.engine.now_s += 60
        bench.submit(9, deadline_s=1000)
        await settle()
    assert bench.seen.limits[-2:] == [20, 40], "and not above what was chosen"


async def test_an_image_that_does_not_fit_alone_is_refused_for_now() -> None:
    bench = Bench()
    bench.engine.immediate, bench.engine.memory_patches = True, 5
    answer = bench.submit(1)
    await settle()
    with pytest.raises(Overloaded) as refusal:
        await answer
    assert (refusal.value.status, refusal.value.retry_after_s) == (503, 1)


async def test_a_lost_device_is_reported_first_and_nothing_runs_on_it_any_more() -> None:
    bench = Bench(max_patches=20, lanes=2)
    answers = [bench.submit(name) for name in (1, 2, LOST, 4, 5, 6)]
    await settle()
    assert bench.engine.batches == [[1, 2], [LOST, 4]]
    await bench.engine.finish(1)
    late = bench.submit(7)
    await bench.engine.finish()
    assert bench.seen.lost == 1
    assert [(await answer).ranking.indices[0] for answer in answers[:2]] == [1, 2], "that run had begun before"
    for answer in [*answers[2:], late]:
        with pytest.raises(DeviceLost):
            await answer
    assert len(bench.engine.batches) == 2
