"""Images on their way between an HTTP process and the engine process, on one event loop."""

import asyncio
from typing import Any

import numpy as np
import pytest
from two_processes import Engine, Scheduler, loaded, until

from service.errors import (
    DeadlineExceeded,
    Draining,
    Internal,
    ModelReplaced,
    NoPatchMemoryError,
    NotReady,
    RequestError,
)
from service.extras import NOTHING, Extras, Found
from service.processes.messages import Kind, Lives, Submission, pack_header, pack_record
from service.processes.slab import PatchSlab
from service.tracing.references import SpanReference

from .conftest import MakeService

pytestmark = pytest.mark.anyio
LATER = 1e9
FIRST = 1 << 32  # the number of the first version of the first engine process


def scheduler(engine: Engine) -> Scheduler:
    shelved = engine.shelf.find(min(engine.shelf.current))
    assert shelved is not None
    return shelved.loaded.queue  # type: ignore[return-value]


async def test_an_image_goes_over_and_its_answer_comes_back(make_service: MakeService) -> None:
    engine, [http] = await make_service().started()
    future = http.submit(9, 77.0)
    await until(lambda: len(scheduler(engine).taken) == 1)
    patches, grid, deadline_s = scheduler(engine).taken[0]
    assert ((patches == 9).all(), patches.shape, grid, deadline_s) == (True, (6, 48), (2, 3), 77.0)
    scheduler(engine).answer(0, 5)
    answer = await future
    assert answer.ranking.indices.tolist() == [5, 6, 7]
    assert answer.ranking.scores.tolist() == pytest.approx([0.5, 0.25, 0.125])
    assert (answer.queue_s, answer.inference_s, answer.batch_images) == (0.25, 0.5, 2)


async def test_the_span_of_a_request_goes_along(make_service: MakeService) -> None:
    service, origin = make_service(), SpanReference(bytes(range(16)), bytes(range(8)))
    engine, [http] = await service.started()
    http.submit(1, origin=origin)
    http.submit(2)
    await until(lambda: len(scheduler(engine).taken) == 2)
    by_value = {int(patches.max()): origin for (patches, _, _), origin in taken(engine)}
    assert by_value == {1: origin, 2: None}
    engine.close()
    second = service.engine(loaded("sha256:1"), life=2, http_lives=[1])
    await until(lambda: len(scheduler(second).taken) == 2)
    assert {int(patches.max()): origin for (patches, _, _), origin in taken(second)} == by_value


def taken(engine: Engine) -> list[tuple[Any, SpanReference | None]]:
    return list(zip(scheduler(engine).taken, scheduler(engine).origins, strict=True))


async def test_what_else_is_wanted_goes_over_and_comes_back(make_service: MakeService) -> None:
    engine, [http] = await make_service().started(loaded("sha256:1", explain=True))
    wanted = [Extras.NONE, Extras.EMBEDDING, Extras.ATTENTION, Extras.EMBEDDING | Extras.ATTENTION]
    futures = [http.submit(value, extras=extras) for value, extras in enumerate(wanted)]
    await until(lambda: scheduler(engine).wanted == wanted)
    features, shares = np.array([1.5, -2.0], np.float32), np.linspace(0, 1, 6, dtype=np.float32)
    for index, extras in enumerate(wanted):
        found = Found(
            features + index if Extras.EMBEDDING in extras else None,
            shares + index if Extras.ATTENTION in extras else None,
        )
        scheduler(engine).answer(index, index, found)
    answers = [(await future).found for future in futures]
    assert answers[0] == NOTHING
    assert [each.embedding is None for each in answers] == [True, False, True, False]
    assert [each.attention is None for each in answers] == [True, True, False, False]
    np.testing.assert_array_equal(answers[1].embedding, features + 1)
    np.testing.assert_array_equal(answers[3].embedding, features + 3)
    np.testing.assert_array_equal(answers[2].attention, shares + 2)
    np.testing.assert_array_equal(answers[3].attention, shares + 3)


async def test_answers_find_their_images_in_any_order(make_service: MakeService) -> None:
    engine, [http] = await make_service().started()
    futures = [http.submit(value) for value in range(4)]
    await until(lambda: len(scheduler(engine).taken) == 4)
    for index in (2, 0, 3, 1):
        scheduler(engine).answer(index, index)
    assert [int((await future).ranking.indices[0]) for future in futures] == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [DeadlineExceeded, Draining, Internal])
async def test_errors_come_back_as_what_they_are(make_service: MakeService, error: type[RequestError]) -> None:
    engine, [http] = await make_service().started()
    future = http.submit(1)
    await until(lambda: bool(scheduler(engine).futures))
    scheduler(engine).futures[0].set_exception(error())
    with pytest.raises(error):
        await future


async def test_a_slot_is_taken_until_the_engine_has_let_go(make_service: MakeService) -> None:
    engine, [http] = await make_service(slots=1).started()
    future = http.submit(1)
    await until(lambda: bool(scheduler(engine).futures))
    future.cancel()
    with pytest.raises(NoPatchMemoryError):
        http.image(1)
    await until(scheduler(engine).futures[0].cancelled)
    await until(lambda: room(http.seat.slab))


def room(slab: PatchSlab) -> bool:
    try:
        slab.take(1, 48)
    except NoPatchMemoryError:
        return False
    return True


async def test_without_an_engine_nothing_is_taken(make_service: MakeService) -> None:
    service = make_service()
    _, [http] = await service.started()
    service.engine_up = False
    with pytest.raises(NotReady):
        await http.submit(1)


async def test_a_new_engine_is_given_what_waited(make_service: MakeService) -> None:
    service = make_service()
    engine, [http] = await service.started()
    futures = [http.submit(value) for value in (4, 5)]
    await until(lambda: len(scheduler(engine).taken) == 2)
    engine.close()
    futures[0].cancel()
    second = service.engine(loaded("sha256:1"), life=2, http_lives=[1])
    await until(lambda: len(scheduler(second).taken) == 1)
    assert (scheduler(second).taken[0][0] == 5).all()
    scheduler(second).answer(0, 8)
    assert (await futures[1]).ranking.indices[0] == 8


async def test_a_new_engine_is_given_whole_images_even_if_answers_were_on_their_way(make_service: MakeService) -> None:
    service = make_service()
    engine, [http] = await service.started()
    future = http.submit(4)
    await until(lambda: len(scheduler(engine).taken) == 1)
    scheduler(engine).answer(0, 2)
    await asyncio.sleep(0)
    engine.desks[0]._channel.forget()
    engine.close()
    second = service.engine(loaded("sha256:1"), life=2, http_lives=[1])
    await until(lambda: len(scheduler(second).taken) == 1)
    assert not future.done()
    assert (scheduler(second).taken[0][0] == 4).all()


async def test_what_two_engines_died_with_is_given_up(make_service: MakeService) -> None:
    service = make_service()
    engine, [http] = await service.started()
    future = http.submit(1)
    await until(lambda: bool(scheduler(engine).taken))
    engine.close()
    second = service.engine(loaded("sha256:1"), life=2, http_lives=[1])
    await until(lambda: bool(scheduler(second).taken))
    second.close()
    third = service.engine(loaded("sha256:1"), life=3, http_lives=[1])
    with pytest.raises(Internal):
        await future
    assert scheduler(third).taken == []


async def test_what_waited_for_another_file_is_given_to_no_other(make_service: MakeService) -> None:
    service = make_service()
    engine, [http] = await service.started()
    old = http.behind()
    future = http.submit(1)
    await until(lambda: bool(scheduler(engine).taken))
    engine.close()
    second = service.engine(loaded("sha256:2", version="2"), life=2, http_lives=[1])
    with pytest.raises(ModelReplaced):
        await future
    with pytest.raises(ModelReplaced):
        await old.queue.submit(http.image(1), LATER)
    assert scheduler(second).taken == []
    later = http.submit(2)
    await until(lambda: bool(scheduler(second).taken))
    scheduler(second).answer(0, 1)
    await later


async def test_an_answer_of_a_dead_engine_is_ignored(make_service: MakeService) -> None:
    service = make_service()
    engine, [http] = await service.started()
    future = http.submit(1)
    await until(lambda: bool(scheduler(engine).taken))
    engine.close()
    second = service.engine(loaded("sha256:1"), life=2, http_lives=[1])
    await until(lambda: bool(scheduler(second).taken))
    scheduler(engine).answer(0, 666)
    scheduler(second).answer(0, 8)
    assert (await future).ranking.indices[0] == 8


async def test_a_new_http_process_gets_none_of_its_predecessors_answers(make_service: MakeService) -> None:
    service = make_service()
    engine, [dead] = await service.started()
    dead.submit(1)
    await until(lambda: len(scheduler(engine).futures) == 1)
    await dead.follower.close()
    http = await service.http(life=2)
    assert scheduler(engine).futures[0].cancelled()
    future = http.submit(3)
    await until(lambda: len(scheduler(engine).futures) == 2)
    scheduler(engine).answer(1, 2)
    assert (await future).ranking.indices[0] == 2


async def test_nonsense_from_an_http_process_is_refused(make_service: MakeService) -> None:
    engine, [http] = await make_service().started()
    attention = int(Extras.ATTENTION)  # which the model does not have
    for page, rows, extras in ((999, 1, 0), (0, 65_000, 0), (0, 101, 0), (0, 0, 0), (0, 1, attention), (0, 1, 64)):
        record = pack_record(Kind.SUBMISSION, Submission(1, FIRST, page, rows, 1, extras, LATER))
        http.seat.http_end.send(pack_header(Kind.SUBMISSION, Lives(1, 1)) + record)
    for line in (b"?\n", b'{"kind":"holding","revision":"x","numbers":[]}\n'):
        http.seat.http_end.send(pack_header(Kind.TEXT, Lives(1, 1)) + line)
    await until(lambda: engine.logged == ["bad_submission"] * 8)
    assert scheduler(engine).taken == []
    future = http.submit(1)
    await until(lambda: bool(scheduler(engine).futures))
    scheduler(engine).answer(0, 1)
    await future


async def test_a_number_that_is_no_version_is_answered_by_none(make_service: MakeService) -> None:
    engine, [http] = await make_service().started()
    http.behind().queue.number = FIRST + 7  # type: ignore[attr-defined]
    with pytest.raises(ModelReplaced):
        await http.submit(1)
    assert scheduler(engine).taken == []
    assert engine.logged == []  # it may have been closed a moment ago


async def test_a_side_that_does_not_read_loses_nothing(make_service: MakeService) -> None:
    engine, [http] = await make_service(slots=3000).started()
    engine.close()
    futures = []
    for value in range(2000):
        futures.append(http.submit(value % 256))
        await asyncio.sleep(0)  # one datagram each: more than the socket holds
    engine.desks[0].open(0)
    await until(lambda: len(scheduler(engine).taken) == 2000)
    for index in range(2000):
        scheduler(engine).answer(index, index)
    assert [int((await future).ranking.indices[0]) for future in futures] == list(range(2000))


async def test_the_desk_notices_that_everybody_has_left(make_service: MakeService) -> None:
    engine, [http] = await make_service().started()
    await http.follower.close()
    assert not engine.desks[0].left.is_set()
    http.seat.http_end.close()
    async with asyncio.timeout(5):
        await engine.desks[0].left.wait()
