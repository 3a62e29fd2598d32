"""A node without containers: replicas on loopback addresses, and the files of `docker/` in front of them.

Needs haproxy, dnsmasq and prometheus in the PATH. The configuration of the proxy is used as it is; that of Prometheus
gets addresses instead of names, because it asks the name server of the machine.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TOOLS = ("haproxy", "dnsmasq", "prometheus")
_FOLDER = Path(__file__).parent
_SERVE = [sys.executable, "-c", "from service.cli import main; main()", "serve"]
_PATIENCE_S = 30.0


@dataclass(slots=True)
class Node:
    """What runs, and where.

    Attributes:
        scratch: for files of this run.
        addresses: of the replicas, by number.
        replicas: their processes.
        port: of every replica.
        proxy_port, health_port, prometheus_port: on 127.0.0.1.
    """

    scratch: Path
    addresses: list[str]
    port: int
    proxy_port: int
    health_port: int
    prometheus_port: int
    replicas: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, address: str) -> None:
        """A replica, which is ready when this returns."""
        settings = ["--host", address, "--port", str(self.port), "--drain-delay-s", "3", "--log-level", "warning"]
        self.replicas[address] = subprocess.Popen([*_SERVE, *settings], stdout=subprocess.DEVNULL)
        wait_until(lambda: status_of(f"http://{address}:{self.port}/readyz") == 200, f"replica {address}")

    def drain(self, address: str) -> None:
        """SIGTERM, as `docker stop` sends it."""
        self.replicas[address].send_signal(signal.SIGTERM)

    def ready_replicas(self) -> int:
        """How many the proxy sends requests to."""
        return self._count("active_servers")

    def retries(self) -> int:
        """How often the proxy had to try for a connection again, on the same replica or on another."""
        return self._count("retry_warnings_total") + self._count("redispatch_warnings_total")

    def _count(self, what: str) -> int:
        text = get(f"http://127.0.0.1:{self.health_port}/metrics").decode()
        lines = [each for each in text.splitlines() if each.startswith(f"haproxy_backend_{what}{{")]
        return int(float(lines[0].split()[-1])) if lines else 0

    def ask_prometheus(self, path: str, **query: str) -> Any:
        """The `data` of an answer of its HTTP interface."""
        url = f"http://127.0.0.1:{self.prometheus_port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        return json.loads(get(url))["data"]


@contextmanager
def running(scratch: Path, replicas: int) -> Iterator[Node]:
    """Replicas, name server, proxy and Prometheus; all of them end with the context."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    addresses = [f"127.0.0.{number + 2}" for number in range(replicas)]
    node = Node(scratch, addresses, *(free_port() for _ in range(4)))
    with ExitStack() as stack:
        stack.callback(lambda: [_end(each) for each in node.replicas.values()])
        for address in addresses:
            node.start(address)
        resolver = f"127.0.0.1:{_start_name_server(node, stack)}"
        _start_proxy(node, resolver, stack)
        _start_prometheus(node, stack)
        wait_until(lambda: node.ready_replicas() == replicas, "the proxy to see all replicas")
        yield node


def _start_name_server(node: Node, stack: ExitStack) -> int:
    hosts = node.scratch / "hosts"
    hosts.write_text("".join(f"{address} replicas\n" for address in node.addresses))
    hosts.chmod(0o644)  # it gives up being root
    node.scratch.chmod(0o755)
    port = free_port(socket.SOCK_DGRAM)
    fixed = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1"]
    _launch(stack, ["dnsmasq", *fixed, f"--port={port}", f"--addn-hosts={hosts}", "--pid-file="])
    return port


def _start_proxy(node: Node, resolver: str, stack: ExitStack) -> None:
    places = {
        "LISTEN": f"127.0.0.1:{node.proxy_port}",
        "LISTEN_HEALTH": f"127.0.0.1:{node.health_port}",
        "REPLICAS": f"replicas:{node.port}",
        "RESOLVER": resolver,
    }
    _launch(stack, ["haproxy", "-db", "-f", str(_FOLDER / "proxy/haproxy.cfg")], environment=places)
    wait_until(lambda: status_of(f"http://127.0.0.1:{node.health_port}/metrics") == 200, "the proxy")


def _start_prometheus(node: Node, stack: ExitStack) -> None:
    document = yaml.safe_load((_FOLDER / "monitoring/prometheus.yml").read_text())
    targets = {
        "patchserve": [f"{address}:{node.port}" for address in node.addresses],
        "proxy": [f"127.0.0.1:{node.health_port}"],
    }
    for job in document["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": targets.get(job["job_name"], [])}]
    document["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    document["rule_files"] = [str((_FOLDER / "monitoring/rules.yml").resolve())]
    file = node.scratch / "prometheus.yml"
    file.write_text(yaml.safe_dump(document))
    listen = f"--web.listen-address=127.0.0.1:{node.prometheus_port}"
    _launch(stack, ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={node.scratch / 'tsdb'}", listen])
    wait_until(lambda: status_of(f"http://127.0.0.1:{node.prometheus_port}/-/ready") == 200, "Prometheus")


def _launch(stack: ExitStack, command: list[str], environment: dict[str, str] | None = None) -> None:
    process = subprocess.Popen(
        command,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(_end, process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def get(url: str) -> bytes:
    """The body of an answer with status 200."""
    with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - addresses of this file
        body: bytes = reply.read()
        return body


def status_of(url: str) -> int:
    """The status of an answer; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - addresses of this file
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Raises: SystemExit: if it takes too long."""
    until = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"waited {_PATIENCE_S:g} s for {what}")
        time.sleep(0.1)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody has on any address."""
    with socket.socket(type=kind) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
