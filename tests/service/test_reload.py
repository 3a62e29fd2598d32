"""Loading models again while they are served, all in one process; with several see processes/test_reload.py."""

import asyncio
import hashlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from served_process import ServedProcess, served
from tiny_artifact import renamed, write_artifact

from service import app
from service.engine import Engine
from service.reload import Reloaded, worst_of
from service.settings import Settings

from .conftest import Serving, picture
from .test_models import BAD

pytestmark = pytest.mark.anyio
RED = picture()
KEY = "a key of thirty-two letters, say"
ADMIN = {"authorization": f"Bearer {KEY}"}
ADMIN_KEY = f"operator:admin:{hashlib.sha256(KEY.encode()).hexdigest()}"


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def put(path: Path, version: str = "2.0", name: str = "tiny-colours", scale: float = 10.0) -> str:
    """Replace the file as an operator should, in one step; its digest."""
    write_artifact(path.with_suffix(".new"), renamed(name=name, version=version), scale=scale)
    path.with_suffix(".new").replace(path)
    return digest_of(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    put(tmp_path / "some.onnx", "1.0")
    return tmp_path / "some.onnx"


@pytest.fixture
async def client(serving: Serving, path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Uploads may take as long as a reload does on a busy machine."""
    slow = {"body_timeout_s": 100, "upload_grace_s": 100}
    async with serving(model=path, api_keys=ADMIN_KEY, allow_anonymous=True, **slow) as client:
        yield client


async def classify(client: httpx.AsyncClient, **query: str) -> httpx.Response:
    query |= {"timeout_ms": "20000"}
    return await client.post("/classify", content=RED, headers={"content-type": "image/png"}, params=query)


async def answering(client: httpx.AsyncClient, **query: str) -> str:
    response = await classify(client, **query)
    assert response.status_code == 200, response.text
    return str(response.json()["model"]["digest"])


async def reload(client: httpx.AsyncClient, name: str = "tiny-colours/") -> httpx.Response:
    return await client.post(f"/models/{name}reload", headers=ADMIN)


async def reloads(client: httpx.AsyncClient, outcome: str) -> float:
    start = f'patchserve_reloads_total{{outcome="{outcome}"}} '
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


async def test_a_good_file_takes_over(client: httpx.AsyncClient, path: Path) -> None:
    old = await answering(client)
    new = put(path)
    assert await answering(client) == old
    response = await reload(client)
    [changed] = response.json()["models"]
    assert (response.status_code, changed["outcome"]) == (200, "reloaded")
    assert changed["old"] == {"name": "tiny-colours", "version": "1.0", "digest": old}
    assert changed["new"] == {"name": "tiny-colours", "version": "2.0", "digest": new}
    assert await answering(client) == new
    assert [each["digest"] for each in (await client.get("/models")).json()["models"]] == [new]
    assert await reloads(client, "reloaded") == 1


async def test_the_same_file_changes_nothing(client: httpx.AsyncClient, path: Path) -> None:
    os.utime(path)
    [changed] = (await reload(client)).json()["models"]
    assert (changed["outcome"], changed["old"]) == ("unchanged", changed["new"])
    assert await reloads(client, "unchanged") == 1


@pytest.mark.parametrize("kind", [*BAD, "missing", "another name"])
async def test_a_bad_file_is_refused_and_the_old_model_serves_on(
    client: httpx.AsyncClient, path: Path, kind: str
) -> None:
    old = await answering(client)
    os.unlink(path)  # noqa: PTH108 - as ruff wants it in a coroutine
    if kind == "another name":
        put(path, name="other")
    elif kind != "missing":
        BAD[kind](path)
    response = await reload(client)
    assert (response.status_code, response.json()["code"]) == (409, "model_refused")
    assert "some.onnx" not in response.text
    assert await answering(client) == old
    assert (await client.get("/readyz")).status_code == 200
    assert await reloads(client, "refused") == 1


async def test_after_a_bad_file_a_good_one_takes_over(client: httpx.AsyncClient, path: Path) -> None:
    path.write_bytes(b"")  # noqa: ASYNC240 - a file of no bytes
    assert (await reload(client)).json()["code"] == "model_refused"
    new = put(path)
    assert (await reload(client)).status_code == 200
    assert await answering(client) == new


async def test_a_file_that_crashes_its_loader_takes_nobody_along(
    client: httpx.AsyncClient, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash is planted with the loader of the child, and there alone."""
    planted = tmp_path / "planted" / "onnxruntime"
    planted.mkdir(parents=True)
    (planted / "__init__.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(str(planted.parent))
    old = await answering(client)
    put(path)
    assert (await reload(client)).json()["code"] == "model_refused"
    assert await answering(client) == old
    monkeypatch.undo()
    assert (await reload(client)).status_code == 200


async def test_a_file_that_hangs_its_loader_is_given_up(
    serving: Serving, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted" / "onnxruntime"
    planted.mkdir(parents=True)
    (planted / "__init__.py").write_text("import time\ntime.sleep(60)\n")
    async with serving(model=path, api_keys=ADMIN_KEY, allow_anonymous=True, reload_timeout_s=0.5) as client:
        monkeypatch.syspath_prepend(str(planted.parent))
        put(path)
        assert (await reload(client)).json()["code"] == "model_refused"
        assert (await classify(client)).status_code == 200


async def test_a_pinned_digest_holds_for_reloads(serving: Serving, path: Path) -> None:
    old = digest_of(path)
    new = put(path)
    shutil.copy(path, allowed := path.with_name("allowed.onnx"))
    put(path, "1.0")
    pins = ",".join(digest.removeprefix("sha256:") for digest in (old, new))
    async with serving(model=path, api_keys=ADMIN_KEY, allow_anonymous=True, model_sha256=pins) as client:
        put(path, "6.6.6")
        assert (await reload(client)).json()["code"] == "model_refused"
        allowed.replace(path)
        assert (await reload(client)).status_code == 200
        assert await answering(client) == new


async def test_a_request_ends_with_the_model_it_began_with(client: httpx.AsyncClient, path: Path) -> None:
    old = await answering(client)
    reloaded = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield RED[:20]
        await reloaded.wait()
        yield RED[20:]

    slow = asyncio.create_task(client.post("/classify", content=slowly(), headers={"content-type": "image/png"}))
    while "patchserve_upload_bytes 20.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
        await asyncio.sleep(0)
    new = put(path)
    assert (await reload(client)).status_code == 200
    assert await answering(client) == new
    reloaded.set()
    response = await slow
    assert (response.status_code, response.json()["model"]["digest"]) == (200, old)


async def test_a_replaced_model_is_closed_after_its_last_request_and_not_before(
    client: httpx.AsyncClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    close = Engine.close

    def noting(engine: Engine) -> None:
        closed.append(engine.model.digest)
        close(engine)

    monkeypatch.setattr(Engine, "close", noting)
    old = await answering(client)
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield RED[:20]
        await go_on.wait()
        yield RED[20:]

    slow = asyncio.create_task(client.post("/classify", content=slowly(), headers={"content-type": "image/png"}))
    while "patchserve_upload_bytes 20.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
        await asyncio.sleep(0)
    put(path)
    await reload(client)
    assert closed == []
    go_on.set()
    assert (await slow).status_code == 200
    while not closed:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert closed == [old]


async def test_versions_of_a_folder_come_and_go(serving: Serving, tmp_path: Path) -> None:
    first = put(tmp_path / "a.onnx", "1.0", "colours")
    async with serving(model=tmp_path, api_keys=ADMIN_KEY, allow_anonymous=True) as client:
        second = put(tmp_path / "b.onnx", "1.1", "colours")
        [changed] = (await reload(client, "colours/")).json()["models"]
        assert (changed["old"]["version"], changed["new"]["version"]) == ("1.0", "1.1")
        assert await answering(client, model="colours") == second
        assert await answering(client, model="colours@1.0") == first
        (tmp_path / "a.onnx").unlink()
        assert (await reload(client, "colours/")).status_code == 200
        assert (await classify(client, model="colours@1.0")).status_code == 404
        put(tmp_path / "c.onnx", "0.9", "shades")
        assert (await reload(client, "shades/")).status_code == 404
        outcomes = {each["name"]: each["outcome"] for each in (await reload(client, "")).json()["models"]}
        assert outcomes == {"colours": "unchanged", "shades": "added"}
        assert (await classify(client, model="shades")).status_code == 200


async def test_a_bad_file_in_a_folder_harms_only_its_own_name(serving: Serving, tmp_path: Path) -> None:
    put(tmp_path / "a.onnx", "1.0", "colours")
    shades = put(tmp_path / "b.onnx", "1.0", "shades")
    async with serving(model=tmp_path, api_keys=ADMIN_KEY, allow_anonymous=True) as client:
        colours = put(tmp_path / "a.onnx", "2.0", "colours")
        (tmp_path / "b.onnx").write_text("broken")
        (tmp_path / "z.onnx").write_text("broken")
        assert (await reload(client, "")).json()["code"] == "model_refused"
        assert await answering(client, model="colours") == colours
        assert await answering(client, model="shades") == shades
        assert (await reload(client, "shades/")).json()["code"] == "model_refused"
        assert (await reload(client, "colours/")).status_code == 200
        assert await reloads(client, "refused") == 3


async def test_a_bug_with_one_name_leaves_the_others_whole_and_is_logged(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a.onnx", "1.0", "colours")
    shades = put(tmp_path / "b.onnx", "1.0", "shades")

    planted = {tmp_path / "b.onnx"}

    def try_model(settings: Settings) -> None:
        if settings.model in planted:
            raise RuntimeError("a planted bug")

    monkeypatch.setattr(app, "try_model", try_model)
    async with serving(model=tmp_path, api_keys=ADMIN_KEY, allow_anonymous=True) as client:
        colours = put(tmp_path / "a.onnx", "2.0", "colours")
        new_shades = put(tmp_path / "b.onnx", "2.0", "shades")
        assert (await reload(client, "")).status_code == 500
        assert await answering(client, model="colours") == colours
        assert await answering(client, model="shades") == shades
        capfd.readouterr()
        client._transport.app.state.reload.soon()  # type: ignore[attr-defined] # as at a SIGHUP
        assert (await reload(client, "colours/")).json()["models"][0]["outcome"] == "unchanged"
        told = capfd.readouterr().err
        assert "model_reload_failed" in told
        assert "a planted bug" in told
        planted.clear()
        assert (await reload(client, "")).status_code == 200
        assert await answering(client, model="shades") == new_shades


async def test_of_two_new_versions_a_bad_one_stops_both(serving: Serving, tmp_path: Path) -> None:
    old = put(tmp_path / "a.onnx", "1.0", "colours")
    async with serving(model=tmp_path, api_keys=ADMIN_KEY, allow_anonymous=True) as client:
        put(tmp_path / "a.onnx", "2.0", "colours")
        write_artifact(tmp_path / "b.onnx", renamed(name="colours", version="3.0"), classes=2)
        assert (await reload(client, "colours/")).json()["code"] == "model_refused"
        assert await answering(client) == old


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), ("Bearer wrong", 401), (f"Basic {KEY}", 401), (f"bearer {KEY}", 200), (f"Bearer  {KEY} ", 200)],
)
async def test_only_the_admin_key_reloads(client: httpx.AsyncClient, authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    for address in ("/models/tiny-colours/reload", "/models/reload"):
        assert (await client.post(address, headers=headers)).status_code == status


async def test_without_an_admin_key_there_is_no_such_address(serving: Serving) -> None:
    async with serving() as client:
        for address in ("/models/tiny-colours/reload", "/models/reload", "/models/other/reload"):
            assert (await client.post(address, headers=ADMIN)).status_code == 404


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.long)])
async def test_reloads_under_load_fail_no_request(client: httpx.AsyncClient, path: Path, count: int) -> None:
    digests = {digest_of(path)}
    seen: set[str] = set()
    over = False

    async def ask() -> int:
        asked = 0
        while not over:
            seen.add(await answering(client))
            asked += 1
        return asked

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(ask()) for _ in range(4)]
        for number in range(count):
            digests.add(put(path, f"2.{number}"))
            assert (await reload(client)).status_code == 200
        over = True
    seen.add(await answering(client))
    assert sum(each.result() for each in clients) > count
    assert len(digests) == count + 1
    assert seen <= digests
    assert digest_of(path) in seen
    assert await reloads(client, "reloaded") == count
    text = (await client.get("/metrics")).text
    for gauge in ("queue_patches", "upload_bytes", "decode_inflight"):
        assert f"patchserve_{gauge} 0.0" in text


def test_memory_returns_after_reloads(tmp_path: Path) -> None:
    """Each model weighs 16 MiB: what was kept of eight would show."""
    path = tmp_path / "some.onnx"

    def put_heavy(number: int) -> None:
        ballast = np.random.default_rng(number).random((1 << 22), np.float32)
        write_artifact(path.with_suffix(".new"), renamed(version=f"1.{number}"), ballast=ballast)
        path.with_suffix(".new").replace(path)

    put_heavy(0)
    with served(path, api_keys=ADMIN_KEY, variables={"PATCHSERVE_ALLOW_ANONYMOUS": "true"}) as service:

        def reloaded(number: int) -> None:
            put_heavy(number)
            with service.connect() as conversation:
                conversation.socket.settimeout(30)
                conversation.send(
                    b"POST /models/tiny-colours/reload HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer %s\r\n"
                    b"Content-Length: 0\r\n\r\n" % KEY.encode()
                )
                assert b" 200 " in conversation.reply().splitlines()[0]

        for number in range(1, 4):
            reloaded(number)
        before = resident_mib(service)
        for number in range(4, 12):
            reloaded(number)
        ended = time.monotonic() + 20  # the last old one goes when nobody is with it any more
        while resident_mib(service) - before >= 48:  # three models; eight kept ones would be 128
            assert time.monotonic() < ended, f"{before} MiB before, {resident_mib(service)} after eight reloads"
            time.sleep(0.1)


def resident_mib(service: ServedProcess) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def test_sighup_reloads_everything(path: Path) -> None:
    with served(path) as service:
        new = put(path)
        service.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 20
        while new not in service.get("/models")[1]:
            assert time.monotonic() < until, "it was not reloaded in time"
            time.sleep(0.05)
        path.write_text("broken")
        service.process.send_signal(signal.SIGHUP)
        while 'reloads_total{outcome="refused"} 1.0' not in service.get("/metrics")[1]:
            assert time.monotonic() < until, "it was not refused in time"
            time.sleep(0.05)
        assert new in service.get("/models")[1]
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(10) == 0


def test_of_several_processes_the_worst_answer_counts() -> None:
    def did(name: str, outcome: str) -> Reloaded:
        return Reloaded(name, outcome, None, None)

    one = [did("birds", "reloaded"), did("bees", "unchanged")]
    other = [did("birds", "refused"), did("bees", "reloaded")]
    told = {each.name: each.outcome for each in worst_of([one, other])}
    assert (
        told == {each.name: each.outcome for each in worst_of([other, one])} == {"birds": "refused", "bees": "reloaded"}
    )
