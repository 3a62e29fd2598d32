"""Two replicas on a local Ray, behind each of its two proxies."""

import csv
import hashlib
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import onnx
import pytest
from cluster_process import Cluster, Load, cluster, kill, wait_until

from model.manifest import METADATA_KEY, Manifest
from service.artifacts import bundled_model

pytestmark = pytest.mark.cluster
KEY = "a key of thirty-two letters, say"
ADMIN = {"authorization": f"Bearer {KEY}"}
MAX_UPLOADS = 1_000_000
VERSIONS = (f"9.{number}" for number in count())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "some.onnx"
    shutil.copy(bundled_model(), path)
    return path


@pytest.fixture(scope="module", params=["--haproxy", "--no-haproxy"])
def proxy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def two(path: Path, proxy: str) -> Iterator[Cluster]:
    key = f"--api-keys=operator:admin:{hashlib.sha256(KEY.encode()).hexdigest()}"
    bounds = [f"--max-upload-memory-bytes={MAX_UPLOADS}", "--min-replicas=2", "--max-replicas=2"]
    with cluster(str(path.parent), key, "--allow-anonymous", *bounds, proxy) as running:
        yield running


def put(path: Path, content: bytes) -> str:
    """Replace the file in one step; its digest."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def of_version(version: str) -> bytes:
    graph = onnx.load(bundled_model())
    for entry in graph.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = replace(Manifest.from_json(entry.value), version=version).to_json()
    return bytes(graph.SerializeToString())


def digests(running: Cluster) -> set[str]:
    """What answers: so many requests that no replica is left out but by a miracle."""
    replies = [running.classify()[2] for _ in range(40)]
    return {reply["model"]["digest"] for reply in replies}


def reached_by_haproxy() -> set[str]:
    """What HAProxy has sent requests to, by its own statistics; nothing if there is none."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:8404/stats;csv", timeout=10) as reply:
            rows = csv.DictReader(reply.read().decode().removeprefix("# ").splitlines())
    except OSError:
        return set()
    return {row["svname"] for row in rows if row["svname"].startswith("SERVE_") and int(row["stot"])}


def test_an_image_is_classified(two: Cluster) -> None:
    status, headers, reply = two.classify()
    assert (status, reply["results"][0]["predictions"][0]["label"]) == (200, "Bag")
    assert headers["x-request-id"] == reply["request_id"]
    assert len(two.replicas()) == 2


def test_haproxy_sends_requests_to_the_replicas_themselves(two: Cluster, proxy: str) -> None:
    digests(two)
    kinds = [each.split("_")[1] for each in reached_by_haproxy()]
    assert kinds == (["REPLICA", "REPLICA"] if proxy == "--haproxy" else [])


def test_ready_as_the_service_is(two: Cluster) -> None:
    assert two.request("/readyz")[::2] == (200, {"status": "ok"})


def test_a_refusal_passes_as_it_is(two: Cluster) -> None:
    body = bytes(MAX_UPLOADS + 1)
    status, headers, problem = two.request("/classify", body, {"content-type": "image/jpeg"})
    assert (status, problem["code"], headers["content-type"]) == (429, "overloaded", "application/problem+json")
    assert int(headers["retry-after"]) >= 1


def test_a_client_s_mistake_passes_as_it_is(two: Cluster) -> None:
    assert two.request("/classify", b"no image", {"content-type": "image/jpeg"})[0] == 422
    assert two.request("/nothing")[2]["code"] == "not_found"


def test_a_reload_reaches_every_replica(two: Cluster, path: Path) -> None:
    before = digests(two)
    with Load(two, clients=4) as load:
        new = put(path, of_version(next(VERSIONS)))
        status, _, reply = two.request("/models/reload", headers=ADMIN, method="POST")
    assert (status, [each["outcome"] for each in reply["models"]]) == (200, ["reloaded"])
    assert digests(two) == {new} != before
    assert set(load.outcomes) == {"200"}


def test_a_bad_file_displaces_no_model_in_any_replica(two: Cluster, path: Path) -> None:
    good, before = path.read_bytes(), digests(two)
    put(path, b"no model")
    status, _, problem = two.request("/models/reload", headers=ADMIN, method="POST")
    put(path, good)
    assert (status, problem["code"]) == (409, "model_refused")
    assert digests(two) == before


def test_an_unknown_name_is_not_found_by_any_replica(two: Cluster) -> None:
    status, _, problem = two.request("/models/nobody/reload", headers=ADMIN, method="POST")
    assert (status, problem["code"]) == (404, "not_found")


def test_a_replica_that_dies_takes_only_its_own_requests_with_it(two: Cluster) -> None:
    first, *_ = before = two.replicas()
    with Load(two, clients=8) as load:
        wait_until(lambda: load.outcomes["200"] > 50)
        gone = kill(first)
        at_death = load.outcomes["200"]
        wait_until(lambda: load.outcomes["200"] > at_death + 200)
    assert all(sent < gone for sent in load.lost), (load.outcomes, [sent - gone for sent in load.lost])
    wait_until(lambda: len(two.replicas()) == 2)
    assert first not in two.replicas() != before
