"""Load one server with wrk: a closed loop that costs the cores it shares with the server next to nothing."""

import hashlib
import json
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["raw", "multipart", "v2"]
_SCRIPT = Path(__file__).with_name("post.lua")
_BOUNDARY = "a-boundary-between-parts"
CONTENT_TYPES: dict[Form, str] = {
    "raw": "image/jpeg",
    "multipart": f"multipart/form-data; boundary={_BOUNDARY}",
    "v2": "application/json",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What wrk saw.

    Attributes:
        requests: answered, whatever the status.
        duration_s: of the load, seconds.
        p50_ms, p99_ms: latency, milliseconds.
        bad_status: answers that were not 2xx or 3xx.
        broken: connections refused, broken or timed out.
    """

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    bad_status: int
    broken: int


def body_of(image: bytes, form: Form) -> bytes:
    """The request body that carries one JPEG."""
    if form == "raw":
        return image
    if form == "multipart":
        head = 'Content-Disposition: form-data; name="file"; filename="image.jpg"\r\nContent-Type: image/jpeg'
        return f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    tensor = {"name": "file", "shape": [1, 1], "datatype": "BYTES", "parameters": {"content_type": "base64"}}
    return json.dumps({"inputs": [tensor | {"data": [b64encode(image).decode()]}]}).encode()


def write_bodies(images: Sequence[bytes], form: Form, folder: Path) -> list[Path]:
    """One file of request body per image, in order, named by its content and written once."""
    bodies = [body_of(image, form) for image in images]
    paths = [folder / f"{hashlib.sha256(body).hexdigest()[:16]}.{form}" for body in bodies]
    for path, body in zip(paths, bodies, strict=True):
        if not path.is_file():
            path.write_bytes(body)
    return paths


def load(url: str, content_type: str, bodies: Sequence[Path], connections: int, seconds: float) -> Loaded:
    """Keep `connections` requests in flight for that long; requests under way at the end are cut and not counted.

    Raises:
        SystemExit: if wrk is not installed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    # wrk takes whole seconds only.
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "120s", "-s", str(_SCRIPT)]
    command = [program, *options, url, "--", content_type, *map(str, bodies)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    line = next(line for line in reversed(printed.splitlines()) if line.startswith("{"))
    return Loaded(**json.loads(line))


def load_answered(url: str, bodies: Sequence[Path], connections: int, seconds: float) -> Loaded:
    """As `load`, with raw bodies, where every request is to be answered.

    Raises:
        SystemExit: if wrk is not installed, or any answer was no success.
    """
    loaded = load(url, CONTENT_TYPES["raw"], bodies, connections, seconds)
    if loaded.bad_status or loaded.broken or not loaded.requests:
        raise SystemExit(f"{loaded.bad_status + loaded.broken} of {loaded.requests} requests failed")
    return loaded
