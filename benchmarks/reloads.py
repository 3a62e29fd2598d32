"""Reloads under load: requests that fail, and the memory that stays.

    python -m benchmarks.reloads --reloads 50
    python -m benchmarks.reloads --reloads 200 --http-workers 2
    python -m benchmarks.reloads --reloads 50 --replicas 2

The bundled model in two versions takes its own place over and over while clients classify one photograph, each on a
connection of its own. Every reply must be 200 and carry the digest of one of the two.
"""

import hashlib
import http.client
import json
import shutil
import statistics
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import onnx
import typer

from benchmarks.served import Served, serve
from model.manifest import METADATA_KEY, Manifest
from service.artifacts import bundled_model

_KEY = "key"
_PHOTO = Path(__file__).resolve().parent.parent / "tests" / "data" / "bag-224x224.jpg"


def _write_versions(folder: Path) -> list[Path]:
    paths = []
    for version in ("1.0.1", "1.0.2"):
        graph = onnx.load(bundled_model())
        for entry in graph.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = replace(Manifest.from_json(entry.value), version=version).to_json()
        paths.append(folder / f"{version}.file")
        onnx.save(graph, paths[-1])
    return paths


def _ask(served: Served, over: threading.Event, outcomes: Counter[str]) -> None:
    connection = http.client.HTTPConnection(served.host, served.port, timeout=30)
    body = _PHOTO.read_bytes()
    while not over.is_set():
        try:
            connection.request("POST", "/classify", body, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            outcomes[type(error).__name__] += 1
            connection.close()
            continue
        outcomes[json.loads(text)["model"]["digest"] if response.status == 200 else str(response.status)] += 1


def _reload(served: Served) -> None:
    connection = http.client.HTTPConnection(served.host, served.port, timeout=300)
    connection.request("POST", "/models/reload", headers={"Authorization": f"Bearer {_KEY}"})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"a reload was answered with {response.status}: {response.read()!r}")
    connection.close()


def command(
    reloads: Annotated[int, typer.Option(min=1)] = 50,
    clients: Annotated[int, typer.Option(min=1, max=100)] = 4,
    http_workers: Annotated[int, typer.Option(min=1, help="As of the service; memory is that of all processes.")] = 1,
    replicas: Annotated[int, typer.Option(min=1, help="As of the service, in the place of HTTP processes.")] = 1,
) -> None:
    """Reload under load, and print what was lost."""
    with TemporaryDirectory() as name:
        versions = _write_versions(Path(name))
        path = Path(name) / "some.onnx"

        def put(number: int) -> None:
            shutil.copy(versions[number % 2], path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)

        put(0)
        key = hashlib.sha256(_KEY.encode()).hexdigest()
        division = ["--replicas", str(replicas)] if replicas > 1 else ["--http-workers", str(http_workers)]
        with serve(path, [*division, "--api-keys", f"boss:admin:{key}", "--allow-anonymous"]) as served:
            over, outcomes, taken_s = threading.Event(), Counter[str](), []
            threads = [threading.Thread(target=_ask, args=(served, over, outcomes)) for _ in range(clients)]
            for thread in threads:
                thread.start()
            time.sleep(2)
            memory_mb = [served.own_mb()]
            try:
                for number in range(1, reloads + 1):
                    put(number)
                    started_s = time.monotonic()
                    _reload(served)
                    taken_s.append(time.monotonic() - started_s)
                    memory_mb.append(served.own_mb())
            finally:  # a client that is not told asks for ever
                over.set()
            for thread in threads:
                thread.join()
            time.sleep(1)
            at_rest_mb = served.own_mb()
    good = {key: count for key, count in outcomes.items() if key.startswith("sha256:")}
    print(
        f"{' '.join(division)}: {reloads} reloads, {clients} clients: "
        f"{sum(good.values())} answered, by {len(good)} digests"
    )
    print(f"failed: {sum(outcomes.values()) - sum(good.values())} {dict(outcomes.items() - good.items())}")
    print(f"a reload, seconds: median {statistics.median(taken_s):.2f}, longest {max(taken_s):.2f}")
    places = {0, 1, 2, 5, 10, 20, 30, 40, 50, 100, 150, reloads} & set(range(reloads + 1))
    print("memory, MB: " + ", ".join(f"{memory_mb[place]:.1f} after {place}" for place in sorted(places)))
    print(f"memory at rest afterwards, MB: {at_rest_mb:.1f}")


if __name__ == "__main__":
    typer.run(command)
