"""Several HTTP processes, several models, and reloads: real processes."""

import hashlib
import http.client
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_process import ServedProcess, served
from tiny_artifact import MANIFEST, renamed, write_artifact

from tests.service.conftest import picture

from .test_supervisor import alive, children, engine_of, metric, until

RED = picture()
KEY = "a key of thirty-two letters, say"
KEYS = f"operator:admin:{hashlib.sha256(KEY.encode()).hexdigest()}"
Answer = tuple[int, Any]


def put(path: Path, version: str, name: str, **changes: Any) -> str:
    """Replace a file in one step; its digest."""
    ballast = changes.pop("ballast", None)
    write_artifact(path.with_suffix(".new"), renamed(name=name, version=version, **changes), ballast=ballast)
    path.with_suffix(".new").replace(path)
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The models `colours` and `shades`, both 1.0."""
    (tmp_path / "models").mkdir()
    for name in ("colours", "shades"):
        put(tmp_path / "models" / f"{name}.onnx", "1.0", name)
    return tmp_path / "models"


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[ServedProcess]:
    anybody = {"PATCHSERVE_ALLOW_ANONYMOUS": "true"}
    with served(folder, **{"http_workers": 2, "api_keys": KEYS, "variables": anybody} | settings) as service:
        yield service


def say(service: ServedProcess, address: str, body: bytes = b"", **headers: str) -> Answer:
    """On a connection of its own, which the kernel deals to either HTTP process."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=40)
    try:
        connection.request("POST", address, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def classify(service: ServedProcess, model: str = "colours") -> Answer:
    return say(service, f"/classify?timeout_ms=20000&model={model}", RED, **{"Content-Type": "image/png"})


def reload(service: ServedProcess, name: str = "") -> Answer:
    return say(service, f"/models/{name}reload", Authorization=f"Bearer {KEY}")


def digests(service: ServedProcess, model: str = "colours") -> set[str]:
    """Of what all HTTP processes answer with; a status where it is no success."""
    return {outcome_of(classify(service, model)) for _ in range(24)}


def outcome_of(answer: Answer) -> str:
    status, document = answer
    return str(document["model"]["digest"]) if status == 200 else str(status)


@contextmanager
def load(service: ServedProcess, clients: int = 4) -> Iterator[Counter[str]]:
    """Clients that classify with both models all the while; how often which digest, or which status, came back."""
    outcomes: Counter[str] = Counter()
    over = threading.Event()

    def ask(model: str) -> None:
        while not over.is_set():
            outcomes[outcome_of(classify(service, model))] += 1

    threads = [threading.Thread(target=ask, args=(("colours", "shades")[number % 2],)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_reloads_under_load_fail_no_request_and_all_processes_switch(folder: Path) -> None:
    with serving(folder) as service:
        [old], [shades] = digests(service), digests(service, "shades")
        seen = {old, shades}
        with load(service) as outcomes:
            for number in range(2, 7):
                new = put(folder / "colours.onnx", f"{number}.0", "colours")
                seen.add(new)
                status, document = reload(service, "colours/")
                [changed] = document["models"]
                assert (status, changed["outcome"], changed["new"]["digest"]) == (200, "reloaded", new)
                assert changed["old"]["digest"] == old
                assert digests(service) == {new}
                old = new
        assert outcomes.keys() <= seen
        assert outcomes[shades] > 0
        assert outcomes[new] > 0
        assert digests(service, "shades") == {shades}
        assert metric(service, 'reloads_total{outcome="reloaded"}') == 5
        assert metric(service, "process_restarts") == 0
        assert metric(service, "queue_patches") == 0


def test_names_and_versions_come_and_everybody_knows(folder: Path) -> None:
    with serving(folder) as service:
        new = put(folder / "z.onnx", "1.1", "colours")
        other = put(folder / "other.onnx", "1", "other", labels=("a", "b", "c"))
        status, document = reload(service)
        outcomes = {each["name"]: each["outcome"] for each in document["models"]}
        assert (status, outcomes) == (200, {"colours": "reloaded", "shades": "unchanged", "other": "added"})
        assert (digests(service), digests(service, "other")) == ({new}, {other})
        listed = {service.get("/models")[1] for _ in range(16)}
        assert len(listed) == 1
        found = [(each["name"], each["version"], each["default"]) for each in json.loads(listed.pop())["models"]]
        assert found == [
            ("colours", "1.1", True),
            ("colours", "1.0", False),
            ("shades", "1.0", False),
            ("other", "1", False),
        ]
        assert classify(service, "other")[1]["results"][0]["predictions"][0]["label"] == "a"


def test_a_bad_file_is_refused_and_the_old_model_serves_on(folder: Path) -> None:
    with serving(folder) as service:
        old = digests(service)
        (folder / "colours.onnx").write_text("broken")
        status, document = reload(service, "colours/")
        assert (status, document["code"]) == (409, "model_refused")
        assert digests(service) == old
        assert metric(service, 'reloads_total{outcome="refused"}') == 1
        assert reload(service, "unknown/")[0] == 404
        assert reload(service, "shades/")[1]["models"][0]["outcome"] == "unchanged"


def test_a_model_whose_images_need_more_memory_than_was_cut_is_refused(folder: Path, tmp_path: Path) -> None:
    larger = replace(MANIFEST.preprocessing, max_patches=2000)
    with (tmp_path / "log").open("w") as log, serving(folder, stderr=log, log_format="json") as service:
        old = digests(service)
        put(folder / "colours.onnx", "2.0", "colours", preprocessing=larger)
        assert reload(service, "colours/")[0] == 409
        assert digests(service) == old
        until(lambda: "model_reload" in (tmp_path / "log").read_text())
        said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        [refused] = [each for each in said if each["event"] == "model_reload"]
        assert re.fullmatch("an image of the model needs 121584 bytes of patch memory, .* again", refused["reason"])


def test_sighup_reloads_everything(folder: Path) -> None:
    with serving(folder) as service:
        new = put(folder / "colours.onnx", "2.0", "colours")
        service.process.send_signal(signal.SIGHUP)
        until(lambda: metric(service, 'reloads_total{outcome="reloaded"}') == 1)
        assert digests(service) == {new}
        for pid in children(service.process.pid)[1:]:
            os.kill(pid, signal.SIGHUP)  # of no meaning to them
        assert digests(service) == {new}
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(15) == 0


def test_a_sighup_while_the_engine_process_starts_is_not_lost(folder: Path) -> None:
    with serving(folder) as service:
        before = children(service.process.pid)
        os.kill(engine_of(service), signal.SIGKILL)
        until(lambda: bool(set(children(service.process.pid)) - set(before)))
        service.process.send_signal(signal.SIGHUP)
        until(lambda: metric(service, 'reloads_total{outcome="unchanged"}') == 2)
        assert "503" not in digests(service)


def test_an_engine_process_that_dies_after_a_reload_has_a_successor_with_the_new_model(folder: Path) -> None:
    with serving(folder) as service:
        [shades] = digests(service, "shades")
        new = put(folder / "colours.onnx", "2.0", "colours")
        assert reload(service, "colours/")[0] == 200
        with load(service) as outcomes:
            until(lambda: outcomes[new] > 10)
            os.kill(engine_of(service), signal.SIGKILL)
            until(lambda: metric(service, "process_restarts") == 1)
            until(lambda: service.get("/readyz")[0] == 200)
            before = outcomes[new]
            until(lambda: outcomes[new] > before + 10)
        assert outcomes.keys() <= {new, shades, "503"}
        assert digests(service) == {new}
        newer = put(folder / "colours.onnx", "3.0", "colours")
        assert reload(service, "colours/")[1]["models"][0]["new"]["digest"] == newer
        assert digests(service) == {newer}


def test_a_successor_serves_what_the_files_are_then(folder: Path) -> None:
    with serving(folder) as service:
        [shades] = digests(service, "shades")
        new = put(folder / "colours.onnx", "2.0", "colours")
        put(folder / "third.onnx", "1.0", "third")
        os.kill(engine_of(service), signal.SIGKILL)
        until(lambda: metric(service, "process_restarts") == 1)
        until(lambda: service.get("/readyz")[0] == 200)
        until(lambda: digests(service) == {new})
        assert digests(service, "shades") == {shades}
        assert len(digests(service, "third")) == 1


def test_a_caller_whose_engine_process_dies_meanwhile_is_told_to_ask_again(folder: Path) -> None:
    with serving(folder) as service:
        new = put(folder / "colours.onnx", "2.0", "colours")
        answers: list[Answer] = []
        caller = threading.Thread(target=lambda: answers.append(reload(service)))
        engine = engine_of(service)
        caller.start()
        until(lambda: tries_a_file(engine))
        os.kill(engine, signal.SIGKILL)
        caller.join()
        assert (answers[0][0], answers[0][1]["code"]) == (503, "not_ready")
        until(lambda: service.get("/readyz")[0] == 200)
        assert {each["outcome"] for each in reload(service)[1]["models"]} == {"unchanged"}
        assert digests(service) == {new}


def tries_a_file(engine: int) -> bool:
    return any(path.read_text() for path in Path(f"/proc/{engine}/task").glob("*/children"))


def test_an_http_process_that_is_started_again_serves_the_new_model(folder: Path) -> None:
    with serving(folder) as service:
        new = put(folder / "colours.onnx", "2.0", "colours")
        assert reload(service)[0] == 200
        for pid in children(service.process.pid)[1:]:
            os.kill(pid, signal.SIGKILL)
            until(lambda: not alive(pid))  # noqa: B023 - called at once
        until(lambda: len(children(service.process.pid)) == 3)
        assert digests(service) == {new}


def test_memory_of_replaced_models_is_given_back(folder: Path) -> None:
    """Each version weighs 16 MiB: what was kept of 12 would show."""

    def reloaded(number: int) -> None:
        ballast = np.random.default_rng(number).random((1 << 22), np.float32)
        put(folder / "colours.onnx", f"{number}", "colours", ballast=ballast)
        assert reload(service, "colours/")[0] == 200

    with serving(folder) as service:
        engine = engine_of(service)
        for number in range(1, 4):
            reloaded(number)
        before = resident_mib(engine)
        for number in range(4, 16):
            reloaded(number)
        until(lambda: resident_mib(engine) - before < 48)  # three versions; the last one may be closing


def resident_mib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024
