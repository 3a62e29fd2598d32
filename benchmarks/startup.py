"""Time from process start to ready, and the memory that the ready service holds.

    python benchmarks/startup.py --rounds 5

Ready is the first 200 of `/readyz`, asked every 10 ms. Memory is the proportional set size of all processes of the
service, from /proc (Linux): what several of them share counts once.
Recorded runs are in docs/performance.md.
"""

import http.client
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.served import family


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(port: int) -> bool:
    """Whether `/readyz` answers 200 now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def resident_mb(pid: int) -> float:
    """Memory of a process and all below it, megabytes; pages that several share count once."""
    text = "".join(Path(f"/proc/{each}/smaps_rollup").read_text() for each in family(pid))
    return sum(int(size) for size in re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)) * 1024 / 1e6


def start_once(
    model: str | Path | None, environment: Mapping[str, str] | None = None, output: int | None = subprocess.DEVNULL
) -> tuple[float, float]:
    """(seconds to ready, resident megabytes) of one start; `output` None shows what the service prints."""
    port = free_port()
    program = str(Path(sys.executable).with_name("patchserve"))
    command = [program, "serve", *([str(model)] if model else []), "--port", str(port), "--drain-delay-s", "0"]
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        while not is_ready(port):
            if process.poll() is not None:
                raise SystemExit("the service did not start")
            time.sleep(0.01)
        ready_s, memory = time.perf_counter() - started, resident_mb(process.pid)
        process.terminate()
    return ready_s, memory


def command(
    model: Annotated[Path | None, typer.Argument(help="Artifact; default the bundled model.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Starts; the median counts.")] = 5,
) -> None:
    """Start the service several times."""
    runs = [start_once(model) for _ in range(rounds)]
    print("seconds to ready: " + ", ".join(f"{seconds:.2f}" for seconds, _ in runs))
    print(f"median {statistics.median(seconds for seconds, _ in runs):.2f} s to ready, ", end="")
    print(f"{statistics.median(memory for _, memory in runs):.0f} MB resident")


if __name__ == "__main__":
    typer.run(command)
