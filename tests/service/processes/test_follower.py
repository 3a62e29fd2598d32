"""Models that come and go while HTTP processes serve them, on one event loop."""

import asyncio
from dataclasses import replace

import pytest
from tiny_artifact import MANIFEST
from two_processes import NAME, Engine, FakeLoaded, Service, change, loaded, until

from service.errors import Internal, ModelReplaced, NotFound, NotReady, StartError
from service.reload import Reloaded
from service.replies import ModelName

from .conftest import MakeService

pytestmark = pytest.mark.anyio
LATER = 1e9
BIGGER = replace(MANIFEST.preprocessing, max_patches=1000)


def old_and_new() -> tuple[FakeLoaded, FakeLoaded]:
    return loaded("sha256:1", version="1"), loaded("sha256:2", version="2")


async def test_all_serve_the_new_version_when_a_switch_has_ended(make_service: MakeService) -> None:
    old, new = old_and_new()
    engine, https = await make_service(http_processes=3).started(old)
    assert [http.digests for http in https] == [{f"{NAME}@1": "sha256:1"}] * 3
    await engine.office.switch(change(new))
    assert [http.digests for http in https] == [{f"{NAME}@2": "sha256:2"}] * 3
    await until(lambda: old.closed)
    assert not new.closed


async def test_a_request_is_answered_by_the_version_that_it_began_with(make_service: MakeService) -> None:
    old, new = old_and_new()
    engine, [http, other] = await make_service(http_processes=2).started(old)
    with http.models.choose(None) as began:
        await engine.office.switch(change(new))
        late = began.behind.queue.submit(http.image(7), LATER)
        await until(lambda: len(old.queue.taken) == 1)
        assert (other.digests, old.closed) == ({f"{NAME}@2": "sha256:2"}, False)
        old.queue.answer(0, 2)
        await late
    await until(lambda: old.closed)
    assert new.queue.taken == []


async def test_a_version_that_comes_back_is_another_one(make_service: MakeService) -> None:
    old, new = old_and_new()
    again = loaded("sha256:1", version="1")
    engine, [http] = await make_service().started(old)
    with http.models.choose(None) as began:
        await engine.office.switch(change(new))
        await engine.office.switch(change(again))
        began.behind.queue.submit(http.image(1), LATER)
        http.submit(2)
        await until(lambda: len(old.queue.taken) == len(again.queue.taken) == 1)
        await until(lambda: new.closed)
        for each in (old, again):
            each.queue.answer(0, 1)
        assert not old.closed
    await until(lambda: old.closed)
    assert not again.closed


async def test_what_stays_goes_on_as_it_is(make_service: MakeService) -> None:
    old, new = old_and_new()
    engine, [http] = await make_service().started(old)
    before = http.models.choose(None)
    await engine.office.switch(change(new, old))
    assert http.models.choose(f"{NAME}@1") is before
    assert http.models.choose(None).model.digest == "sha256:2"
    http.submit(1)
    await until(lambda: len(new.queue.taken) == 1)


async def test_a_name_is_added(make_service: MakeService) -> None:
    old, _ = old_and_new()
    engine, [http] = await make_service().started(old)
    await engine.office.switch(change(loaded("sha256:3", name="other", version="9")))
    assert http.digests == {f"{NAME}@1": "sha256:1", "other@9": "sha256:3"}
    assert http.models.choose(None).model.digest == "sha256:1"


async def test_a_process_that_starts_later_begins_with_what_there_is(make_service: MakeService) -> None:
    old, new = old_and_new()
    service = make_service(http_processes=2)
    engine = service.engine(old)
    await engine.office.switch(change(new))
    assert (await service.http(1)).digests == {f"{NAME}@2": "sha256:2"}


async def test_what_is_said_to_a_process_before_it_serves_is_not_lost(make_service: MakeService) -> None:
    old, new = old_and_new()
    service = make_service()
    engine = service.engine(old)
    starting = asyncio.create_task(service.http())
    await until(lambda: bool(engine.office._agreements[0].held))  # it has greeted
    preparing = asyncio.create_task(engine.office.prepare(MANIFEST.preprocessing))
    await asyncio.gather(engine.office.switch(change(new)), preparing)
    assert (await starting).digests == {f"{NAME}@2": "sha256:2"}
    await until(lambda: old.closed)


async def test_a_switch_waits_for_the_successor_of_a_dead_process(make_service: MakeService) -> None:
    old, new = old_and_new()
    service = make_service()
    engine, [dead] = await service.started(old)
    await dead.follower.close()
    switching = asyncio.create_task(engine.office.switch(change(new)))
    await asyncio.sleep(0.05)
    assert (switching.done(), old.closed) == (False, False)
    assert (await service.http(life=2)).digests == {f"{NAME}@2": "sha256:2"}
    await switching
    await until(lambda: old.closed)


async def test_a_process_that_does_not_answer_holds_up_nobody_for_ever(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.processes.office._LONGEST_S", 0.05)
    old, new = old_and_new()
    engine, [http, hung] = await make_service(http_processes=2).started(old)
    await hung.follower.close()
    with pytest.raises(StartError, match="did not get ready for the model in"):
        await engine.office.prepare(MANIFEST.preprocessing)
    await engine.office.switch(change(new))
    assert http.digests == {f"{NAME}@2": "sha256:2"}
    assert engine.log.calls[-1].kwargs["model"] == NAME
    assert not old.closed  # the process that hangs may come back and submit to it
    await hung.follower.open()
    await until(lambda: hung.digests == {f"{NAME}@2": "sha256:2"} and old.closed)


# --- getting ready ----------------------------------------------------------------------------------------------------
async def test_every_process_gets_ready(make_service: MakeService) -> None:
    engine, https = await make_service(http_processes=2).started()
    await engine.office.prepare(MANIFEST.preprocessing)
    assert [http.prepared for http in https] == [[MANIFEST.preprocessing]] * 2


async def test_one_that_cannot_is_enough(make_service: MakeService) -> None:
    engine, [_, unable] = await make_service(http_processes=2).started()
    unable.unable = "no more processes"
    with pytest.raises(StartError, match="no more processes"):
        await engine.office.prepare(MANIFEST.preprocessing)


async def test_images_that_are_larger_than_their_place_are_refused(make_service: MakeService) -> None:
    engine, [http] = await make_service().started()
    with pytest.raises(
        StartError, match=r"needs 69584 bytes of patch memory, but .* of 24576 .*: start the service aga"
    ):
        await engine.office.prepare(BIGGER)
    assert http.prepared == []


async def test_the_place_is_that_of_the_largest_model(make_service: MakeService) -> None:
    small, large = loaded("sha256:1"), loaded("sha256:2", version="0", preprocessing=BIGGER)
    engine, _ = await make_service(slots=30).started(small, large)
    await engine.office.prepare(BIGGER)


# --- reload calls -----------------------------------------------------------------------------------------------------
async def test_the_outcome_comes_back_to_whoever_asked(make_service: MakeService) -> None:
    engine, [http, other] = await make_service(http_processes=2).started()
    name = ModelName(name=NAME, version="1", digest="sha256:1")
    engine.outcome = [Reloaded(NAME, "unchanged", name, name), Reloaded("", "refused", None, None)]
    assert await http.follower.reload(None) == engine.outcome
    engine.outcome = NotFound()
    with pytest.raises(NotFound):
        await other.follower.reload("unknown\n\N{SNOWMAN}")
    assert engine.asked == [None, "unknown\n\N{SNOWMAN}"]


async def test_a_reload_that_fails_in_a_way_of_its_own_leaves_nobody_waiting(make_service: MakeService) -> None:
    engine, [http] = await make_service().started()
    engine.outcome = RuntimeError("a bug")
    with pytest.raises(Internal):
        await asyncio.wait_for(http.follower.reload(None), 5)
    assert (engine.logged, engine.log.calls[0].method_name) == (["reload_failed"], "exception")
    engine.outcome = []
    assert await http.follower.reload(None) == []


async def test_without_an_engine_there_is_no_reload(make_service: MakeService) -> None:
    service = make_service()
    _, [http] = await service.started()
    service.engine_up = False
    with pytest.raises(NotReady):
        await http.follower.reload(None)


# --- another engine process -------------------------------------------------------------------------------------------
def dies_and_returns(engine: Engine, service: Service, *versions: FakeLoaded) -> None:
    engine.close()
    service.engine(*versions, life=2, http_lives=[1])


async def test_a_successor_with_other_files_is_agreed_with(make_service: MakeService) -> None:
    service = make_service()
    engine, [http] = await service.started(loaded("sha256:1", version="1"))
    new, other = loaded("sha256:2", name="b"), loaded("sha256:3", name="b", version="0")
    dies_and_returns(engine, service, new, other)
    await until(lambda: http.digests == {"b@1.0.0": "sha256:2", "b@0": "sha256:3"})
    assert http.models.choose(None).model.digest == "sha256:2"
    with pytest.raises(NotFound):
        http.models.choose(NAME)
    http.submit(1)
    await until(lambda: len(new.queue.taken) == 1)


async def test_a_caller_whose_engine_dies_is_told_so(make_service: MakeService) -> None:
    service = make_service()
    engine, [http] = await service.started()
    engine.close()
    call = asyncio.create_task(http.follower.reload(None))
    await asyncio.sleep(0.01)
    dies_and_returns(engine, service, loaded("sha256:1"))
    with pytest.raises(NotReady):
        await call


async def test_a_replaced_version_lives_on_where_the_successor_has_its_file(make_service: MakeService) -> None:
    """The file was put back before the engine process died."""
    old, new = old_and_new()
    service = make_service()
    engine, [http] = await service.started(old)
    with http.models.choose(None) as began:
        await engine.office.switch(change(new))
        back = loaded("sha256:1", version="1")
        dies_and_returns(engine, service, back)
        await until(lambda: http.digests == {f"{NAME}@1": "sha256:1"})
        late = began.behind.queue.submit(http.image(3), LATER)
        await until(lambda: len(back.queue.taken) == 1)
        back.queue.answer(0, 1)
        await late
    http.submit(1)
    await until(lambda: len(back.queue.taken) == 2)
    assert not back.closed


async def test_a_process_that_cannot_serve_what_a_successor_has_gives_up(make_service: MakeService) -> None:
    service = make_service()
    engine, [http] = await service.started()
    waiting = http.submit(1)
    dies_and_returns(engine, service, loaded("sha256:2", preprocessing=BIGGER))
    with pytest.raises(ModelReplaced):
        await waiting
    assert "start the service again" in str(http.gave_up[0])
