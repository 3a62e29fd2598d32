"""Two replicas behind the proxy: one drains under load and comes back, no request is lost, and Prometheus sees it all.

    PYTHONPATH=. python docker/try_node.py

Needs the packages of the tests, and haproxy, dnsmasq and prometheus of Debian. Status 1 if a check fails.
"""

import asyncio
import json
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node import Node, get, running, status_of, wait_until

from benchmarks.arrivals import LOST, Answers, Pool, constant, send_at
from benchmarks.images import make_jpegs
from benchmarks.load import request_of

_RATE = 20  # requests a second, which leaves two cores room to start a replica
_LOAD_S = 24.0
_DRAIN_S, _RETURN_S = 6.0, 14.0  # into the load
_DASHBOARD = Path(__file__).parent / "monitoring/grafana/patchserve.json"


def main() -> int:
    """A line for each check."""
    checks: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as scratch, running(Path(scratch), 2) as node:
        checks |= _check_routes(node) | _check_streaming(node)
        answers, drained = asyncio.run(_drain_under_load(node))
        checks |= _check_answers(answers) | drained
        checks |= _check_prometheus(node)
        checks |= _check_nobody(node)
    for what, passed in checks.items():
        _say(f"{'ok' if passed else 'FAILED':7} {what}")
    return 0 if all(checks.values()) else 1


def _check_routes(node: Node) -> dict[str, bool]:
    proxy = f"http://127.0.0.1:{node.proxy_port}"
    return {
        "proxy: the service answers through it": status_of(f"{proxy}/readyz") == 200,
        "proxy: /metrics of one replica of many is 404": status_of(f"{proxy}/metrics") == 404,
        "proxy: so is the reload of one": _post(f"{proxy}/models/x/reload") == _post(f"{proxy}/models/reload") == 404,
        "proxy: healthy": status_of(f"http://127.0.0.1:{node.health_port}/healthz") == 200,
    }


def _post(url: str) -> int:
    try:
        with urllib.request.urlopen(url, b"", timeout=5) as reply:  # noqa: S310 - addresses of this file
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def _check_streaming(node: Node) -> dict[str, bool]:
    """A replica has a body in its hands before the client has sent all of it."""
    head = b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Type: image/jpeg\r\nContent-Length: 5000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.proxy_port)) as connection:
        connection.sendall(head + bytes(1_000_000))
        try:
            wait_until(lambda: _held_bytes(node) >= 900_000, "a replica to have the beginning of a body")
        except SystemExit:
            return {"proxy: bodies are streamed": False}
    return {"proxy: bodies are streamed": True}


def _held_bytes(node: Node) -> float:
    pages = [get(f"http://{address}:{node.port}/metrics").decode() for address in node.addresses]
    lines = [line for page in pages for line in page.splitlines() if line.startswith("patchserve_upload_bytes ")]
    return sum(float(line.split()[1]) for line in lines)


async def _drain_under_load(node: Node) -> tuple[Answers, dict[str, bool]]:
    answers = Answers()
    pool = Pool("127.0.0.1", node.proxy_port, answers)
    requests = [request_of(image, "localhost", "/classify?timeout_ms=10000") for image in make_jpegs(224, 224)]
    follow = asyncio.create_task(asyncio.to_thread(_drain_and_return, node))
    await send_at(pool, constant(_RATE, _LOAD_S), requests)
    await pool.settle(15.0)
    pool.close()
    answers.refused_connections += pool.outstanding
    return answers, await follow


def _drain_and_return(node: Node) -> dict[str, bool]:
    address = node.addresses[0]
    time.sleep(_DRAIN_S)
    node.drain(address)
    wait_until(lambda: node.ready_replicas() == 1, "the proxy to look away")
    still_serving = node.replicas[address].poll() is None
    status = node.replicas[address].wait(timeout=20)
    time.sleep(max(0.0, _RETURN_S - _DRAIN_S - 4))
    node.start(address)
    wait_until(lambda: node.ready_replicas() == 2, "the proxy to see it again")
    _say(f"connections that the proxy had to try for again: {node.retries()}")
    return {
        "drain: the proxy looked away while the replica still served": still_serving,
        "drain: the replica ended with status 0": status == 0,
        "drain: the proxy took it back": True,
    }


def _check_answers(answers: Answers) -> dict[str, bool]:
    statuses = answers.statuses
    _say(f"{sum(statuses.values())} requests at {_RATE}/s, one of two replicas drained: {dict(statuses)}")
    _say(f"latency p50 {answers.percentile_ms(0.5, 200):.1f} ms, p99 {answers.percentile_ms(0.99, 200):.1f} ms")
    return {
        "drain: no request lost, no connection refused": not statuses[LOST] and not answers.refused_connections,
        "drain: every answer is 200": set(statuses) == {200},
    }


def _check_prometheus(node: Node) -> dict[str, bool]:
    targets = node.ask_prometheus("targets")["activeTargets"]
    groups = node.ask_prometheus("rules")["groups"]
    unwell = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"]
    empty = [title for title, expression in _panels() if not _answer(node, expression)]
    _say(
        f"Prometheus: {len(targets)} targets, {sum(len(group['rules']) for group in groups)} rules, "
        f"panels without an answer: {empty or 'none'}"
    )
    return {
        "prometheus: every target is up": len(targets) == 3 and all(each["health"] == "up" for each in targets),
        "prometheus: every rule is evaluated": bool(groups) and not unwell,
        "grafana: every query but those of a GPU has an answer": set(empty) <= {"GPU"},
    }


def _panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads(_DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "30s").replace("$instance", ".*")


def _answer(node: Node, expression: str) -> list[Any]:
    result: list[Any] = node.ask_prometheus("query", query=expression)["result"]
    return result


def _check_nobody(node: Node) -> dict[str, bool]:
    for address in node.addresses:
        node.drain(address)
    wait_until(lambda: node.ready_replicas() == 0, "the proxy to see that nobody is left")
    try:
        get(f"http://127.0.0.1:{node.proxy_port}/readyz")
    except urllib.error.HTTPError as error:
        problem = json.loads(error.read())
        told = (error.code, problem["code"], error.headers["Retry-After"]) == (503, "not_ready", "1")
        return {"proxy: without replicas it says so": told}
    return {"proxy: without replicas it says so": False}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
