"""The client against a real service over sockets, and against a server that misbehaves by script."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count, islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from scripted_server import DROP, reply, scripted
from served_process import ServedProcess, served

from service.client import (
    AccessDenied,
    AsyncClient,
    Busy,
    CallError,
    Client,
    ImageRefused,
    NoConnection,
    NotUnderstood,
    Outcome,
    Picture,
    Retries,
    ServiceError,
    TimedOut,
    UnknownModel,
    UnreadableImage,
)
from service.keys import digest_of

from .conftest import picture

KEY = "patchserve_secret"
AT_ONCE = Retries(attempts=3, first_pause_s=0.001, longest_pause_s=0.001)
RED, BLUE = picture((220, 10, 10), (28, 28)), picture((10, 10, 220), (60, 20))
ANSWER = json.dumps(
    {
        "model": {"name": "m", "version": "1", "digest": "d"},
        "results": [
            {
                "predictions": [{"label": "red", "index": 0, "score": 1.0}],
                "patches": 1,
                "grid": [1, 1],
                "width": 1,
                "height": 1,
                "format": "PNG",
                "degraded": False,
            }
        ],
        "timing_ms": {},
        "request_id": "id",
    }
)
BUSY = json.dumps({"code": "overloaded", "detail": "Too much.", "request_id": "id"})


@pytest.fixture(scope="module")
def service(artifact: Path) -> Iterator[ServedProcess]:
    with served(artifact) as process:
        yield process


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a method of either client: `ask(url, "classify", RED, k=1, retries=AT_ONCE)`."""

    def sync(url: str, method: str, *arguments: Any, terms: dict[str, Any] | None = None, **options: Any) -> Any:
        with Client(url, **({"retries": AT_ONCE} | (terms or {}))) as client:
            result = getattr(client, method)(*arguments, **options)
            return list(result) if method == "classify_many" else result

    async def there(url: str, method: str, *arguments: Any, terms: dict[str, Any] | None = None, **options: Any) -> Any:
        async with AsyncClient(url, **({"retries": AT_ONCE} | (terms or {}))) as client:
            result = getattr(client, method)(*arguments, **options)
            return [each async for each in result] if method == "classify_many" else await result

    return sync if request.param == "sync" else lambda *args, **kwargs: asyncio.run(there(*args, **kwargs))


def url_of(process: ServedProcess) -> str:
    return f"http://127.0.0.1:{process.port}"


# --- a real service ---------------------------------------------------------------------------------------------------
def test_an_image_is_classified_however_it_is_given(
    service: ServedProcess, ask: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(RED)
    image = Image.open(path)
    given = [path, str(path), RED, BytesIO(RED), image, np.asarray(image)]
    answers = [ask(url_of(service), "classify", each, k=2) for each in given]
    assert {answer.best.label for answer in answers} == {"red"}
    assert {(answer.best.score, answer.grid, answer.format) for answer in answers} == {
        (answers[0].best.score, (7, 7), "PNG")
    }
    assert [len(answer.predictions) for answer in answers] == [2] * 6


def test_options_reach_the_service(service: ServedProcess, ask: Callable[..., Any]) -> None:
    url = url_of(service)
    assert ask(url, "classify", BLUE, max_patches=9, allow_degraded=False, timeout_ms=9000, k=None).patches <= 9
    assert ask(url, "classify", BLUE, model="tiny-colours@1.0.0").model.version == "1.0.0"
    with pytest.raises(UnknownModel) as raised:
        ask(url, "classify", BLUE, model="other")
    assert raised.value.request_id
    with pytest.raises(TypeError, match="no such option: kk"):
        ask(url, "classify", BLUE, kk=1)
    with pytest.raises(ServiceError, match="invalid_parameter"):
        ask(url, "classify", BLUE, k=4)


def test_models_and_readiness(service: ServedProcess, ask: Callable[..., Any]) -> None:
    [model] = ask(url_of(service), "models")
    assert (model.name, model.version, model.state, model.newest, model.default) == (
        "tiny-colours", "1.0.0", "ready", True, True
    )  # fmt: skip
    assert ask(url_of(service), "ready") is True


def test_outcomes_come_in_order_and_one_bad_image_stays_alone(service: ServedProcess, ask: Callable[..., Any]) -> None:
    given: list[Picture] = [RED, BLUE, b"no image", "missing.png", RED[:-30], BLUE]
    outcomes: list[Outcome] = ask(url_of(service), "classify_many", iter(given * 5), concurrency=4)
    assert [outcome.place for outcome in outcomes] == list(range(30))
    found = [
        outcome.classification.best.label if outcome.classification else type(outcome.error) for outcome in outcomes
    ]
    assert found == ["red", "blue", ImageRefused, UnreadableImage, ImageRefused, "blue"] * 5
    assert outcomes[3].name == "missing.png"


def test_nothing_at_a_time_is_refused(ask: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        ask("http://127.0.0.1:1", "classify_many", [RED], concurrency=0)


def test_images_are_taken_as_they_are_needed(service: ServedProcess) -> None:
    taken = count()
    endless = (RED for _ in taken)
    with Client(url_of(service)) as client:
        outcomes = client.classify_many(endless, concurrency=2)
        assert [outcome.get().best.label for outcome in islice(outcomes, 3)] == ["red"] * 3
        outcomes.close()
    assert next(taken) <= 3 + 2 * 2 + 1


def test_an_async_iteration_may_end_early(service: ServedProcess) -> None:
    async def some() -> int:
        async with AsyncClient(url_of(service)) as client:
            outcomes = client.classify_many((RED for _ in count()), concurrency=2)
            async for outcome in outcomes:
                if outcome.place == 2:
                    break
            await outcomes.aclose()
            return len(asyncio.all_tasks())

    assert asyncio.run(some()) == 1


def test_connections_are_used_again(service: ServedProcess) -> None:
    def open_connections() -> int:
        line = next(
            line for line in service.get("/metrics")[1].splitlines() if line.startswith("patchserve_open_connections ")
        )
        return int(float(line.split()[-1]))

    before = open_connections()
    with Client(url_of(service)) as client:
        for _ in range(10):
            client.classify(RED)
        assert open_connections() == before + 1


def test_one_client_serves_several_threads(service: ServedProcess) -> None:
    labels: list[str] = []
    with Client(url_of(service)) as client:
        threads = [threading.Thread(target=lambda: labels.append(client.classify(RED).best.label)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert labels == ["red"] * 8


def test_who_asks_too_often_waits_as_long_as_the_service_says(artifact: Path, ask: Callable[..., Any]) -> None:
    line = f"shop:user:{digest_of(KEY.encode()).hex()}:2/second"
    with served(artifact, api_keys=line) as process:
        url, patient = url_of(process), {"api_key": KEY, "retries": Retries(attempts=8)}
        outcomes = ask(url, "classify_many", [RED] * 5, concurrency=1, terms=patient)
        assert [outcome.get().best.label for outcome in outcomes] == ["red"] * 5
        at_once = ask(url, "classify_many", [RED] * 5, concurrency=1, terms={**patient, "retries": Retries(attempts=1)})
        refused = next(outcome.error for outcome in at_once if outcome.error)
        assert isinstance(refused, Busy)
        assert refused.code == "rate_limited"
        assert refused.retry_after_s is not None
        assert refused.retry_after_s >= 1
        with pytest.raises(AccessDenied, match="401 unauthorized"):
            ask(url, "classify", RED, terms={"api_key": "wrong"})
        with pytest.raises(AccessDenied):
            ask(url, "models")
        assert ask(url, "ready")


def test_a_service_that_hangs_is_given_up_and_not_asked_again(artifact: Path, ask: Callable[..., Any]) -> None:
    with served(artifact) as process:
        process.process.send_signal(signal.SIGSTOP)
        terms = {"timeout_s": 0.3}
        with pytest.raises(TimedOut, match=r"did not answer") as raised:
            ask(url_of(process), "classify", RED, terms=terms)
        assert raised.value.attempts == 1
        assert ask(url_of(process), "ready", terms=terms) is False
        process.process.send_signal(signal.SIGCONT)
        assert ask(url_of(process), "classify", RED).best.label == "red"


def test_a_service_that_is_not_there(artifact: Path, ask: Callable[..., Any]) -> None:
    with served(artifact) as process:
        url = url_of(process)
    with pytest.raises(NoConnection, match=r"127\.0\.0\.1") as raised:
        ask(url, "classify", RED)
    assert raised.value.attempts == AT_ONCE.attempts
    assert ask(url, "ready") is False


# --- a scripted one ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "first",
    [
        DROP,
        reply(429, BUSY),
        reply(429, BUSY, Retry_After="0"),
        reply(503, "<html>"),
        reply(503, Retry_After="Thu, 01 Jan 2026 00:00:00 GMT"),
    ],
    ids=["dropped", "429", "429 with a time", "503 of a proxy", "503 with a date"],
)
def test_what_was_not_begun_is_asked_again(first: bytes, ask: Callable[..., Any]) -> None:
    with scripted(first, reply(200, ANSWER)) as script:
        assert ask(script.url, "classify", RED).best.label == "red"
    assert len(script.requests) == 2
    assert all(request.endswith(RED) for request in script.requests)


def test_a_connection_that_the_service_has_closed_meanwhile_is_no_failure(ask: Callable[..., Any]) -> None:
    with scripted(reply(200, ANSWER), DROP, reply(200, ANSWER)) as script:
        outcomes = ask(script.url, "classify_many", [RED] * 2, concurrency=1)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert (len(script.requests), script.connections) == (3, 2)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (reply(200, ANSWER)[:-20], NoConnection),
        (reply(500), ServiceError),
        (reply(504), ServiceError),
        (reply(302, Location="/elsewhere"), NotUnderstood),
        (reply(200, "<html>hello</html>"), NotUnderstood),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", NoConnection),
    ],
    ids=["cut off", "500", "504", "redirect", "a page", "not HTTP"],
)
def test_what_was_answered_is_not(first: bytes, kind: type[CallError], ask: Callable[..., Any]) -> None:
    with scripted(first, *[reply(200, ANSWER)] * 3) as script, pytest.raises(kind):
        ask(script.url, "classify", RED, terms={"retries": Retries(attempts=1)} if b"SSH" in first else None)
    assert len(script.requests) == 1


def test_a_wait_that_is_too_long_is_not_begun(ask: Callable[..., Any]) -> None:
    with scripted(reply(429, BUSY, Retry_After="3600")) as script, pytest.raises(Busy) as raised:
        ask(script.url, "classify", RED)
    assert (raised.value.retry_after_s, raised.value.attempts, raised.value.request_id) == (3600, 1, "id")


def test_readiness_is_asked_once(ask: Callable[..., Any]) -> None:
    with scripted(reply(503), reply(200)) as script:
        assert ask(script.url, "ready") is False
        assert ask(script.url, "ready") is True
    with scripted(reply(404)) as script, pytest.raises(UnknownModel):
        ask(script.url, "ready")


def test_a_key_and_a_path_in_front_are_sent(ask: Callable[..., Any]) -> None:
    with scripted(reply(200, ANSWER)) as script:
        url = script.url.replace("http://", "http://proxy:password@") + "/behind"
        ask(url, "classify", RED, k=1, terms={"api_key": KEY})
    head = script.requests[0].split(b"\r\n\r\n")[0].decode().lower()
    assert head.startswith("post /behind/classify?k=1 http/1.1")
    assert f"x-api-key: {KEY}" in head
    assert "authorization: basic" in head
    assert "content-type: image/png" in head


def test_a_password_in_the_address_is_in_no_message(ask: Callable[..., Any]) -> None:
    with pytest.raises(NoConnection) as raised:
        ask("http://user:password@127.0.0.1:1", "classify", RED, terms={"retries": Retries(attempts=1)})
    assert "password" not in str(raised.value)


def test_closing_ends_the_pauses() -> None:
    with scripted(reply(429, BUSY, Retry_After="20")) as script:
        client = Client(script.url, retries=Retries(total_s=60))
        outcomes = client.classify_many([RED], concurrency=1)
        closer = threading.Thread(target=lambda: (_until(lambda: bool(script.requests)), client.close()))
        closer.start()
        [outcome] = outcomes
        closer.join()
    assert isinstance(outcome.error, CallError)


def _until(done: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if done():
            return
        pause.wait(0.005)


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://host", "http://", "http://host:port"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_impossible_address_is_refused_at_once(kind: Callable[[str], object], url: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        kind(url)


@pytest.mark.parametrize("key", ["", "a\n", "a b\r\nX: y", "schlüssel"])
def test_an_impossible_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as raised:
        Client("http://h", api_key=key)
    assert not key or key not in str(raised.value)


def test_a_transport_may_be_given() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=ANSWER))
    with Client("https://h", transport=transport) as client:
        assert client.classify(RED).best.label == "red"


# --- what it needs ----------------------------------------------------------------------------------------------------
def test_it_is_imported_without_the_server() -> None:
    program = "import sys, service.client; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    heavy = {"fastapi", "starlette", "uvicorn", "pydantic", "onnxruntime", "numpy", "PIL", "prometheus_client", "typer"}
    assert not heavy & loaded
    ours = {name for name in loaded if name.split(".")[0] in {"service", "model", "export"}}
    assert {name for name in ours if not name.startswith("service.calls")} == {"service", "service.client"}
