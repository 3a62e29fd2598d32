"""The service as its own processes, seen from outside: started, asked for its metrics, weighed, stopped.

Also the models that benchmarks serve: made when they are missing, kept in the temporary folder of the system.
"""

import hashlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY = re.compile(r"patchserve listens on http://([^:]+):(\d+)")
_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Served:
    """A service that is ready."""

    host: str
    port: int
    pid: int  # of the first process; others may be its children

    def counters(self) -> dict[str, float]:
        """The samples of `/metrics` by name and labels, such as `patchserve_batch_patches_sum`."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def own_mb(self) -> float:
        """Memory that all its processes filled, megabytes; what they share counts once, program files do not count.

        Files are left out because the share of a process in them falls whenever any other program maps them too.
        """
        return sum(_own_kb(pid) for pid in family(self.pid)) * 1024 / 1e6

    def cpu_s(self) -> float:
        """Processor time of all its processes, seconds, user and kernel."""
        return sum(process_cpu_s(pid) for pid in family(self.pid))

    def children(self) -> list[int]:
        """The processes that it has started, in order: the engine process first, then the HTTP processes."""
        return [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


@contextmanager
def serve(model: Path | None, options: list[str], program: Sequence[str] = ()) -> Iterator[Served]:
    """`patchserve serve`, or another program that takes the same arguments, in processes of its own, ready."""
    program = program or [str(Path(sys.executable).with_name("patchserve")), "serve"]
    command = [*program, *([str(model)] if model else []), "--port", "0", "--no-brown-out", *options]
    with listening(command) as served:
        yield served


@contextmanager
def listening(command: Sequence[str], end_s: float = 30) -> Iterator[Served]:
    """A command that says where patchserve listens, from then until it has ended, which may take `end_s` seconds."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            if found := _READY.search(line):
                break
        else:
            raise SystemExit("the service did not start")
        try:
            yield Served(found[1], int(found[2]), process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=end_s)


@contextmanager
def service(model: Path | None, options: list[str]) -> Iterator[tuple[str, int]]:
    """As `serve`; yields host and port."""
    with serve(model, options) as served:
        yield served.host, served.port


def artifact(variant: str, *options: str) -> Path:
    """A model with random weights, see `benchmarks.artifacts`; made once for one state of the source code."""
    # A changed graph is another model: one that was kept from before would be measured in its place.
    sources = sorted([*_REPOSITORY.glob("export/*.py"), *_REPOSITORY.glob("model/*.py")])
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    name = "".join(each if each.isalnum() else "-" for each in "".join([variant, *options]))
    path = Path(tempfile.gettempdir()) / "patchserve-benchmarks" / f"{name}-{state}.onnx"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.artifacts", variant, *options, "-o", str(path)]
        subprocess.run(command, check=True, cwd=_REPOSITORY)
    return path


def family(pid: int) -> list[int]:
    """A process and all below it."""
    below = [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in path.read_text().split()]
    return [pid, *(each for child in below for each in family(child))]


def _own_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", text, re.MULTILINE))


def process_cpu_s(pid: int) -> float:
    """Processor time of one process, seconds, user and kernel."""
    values = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
