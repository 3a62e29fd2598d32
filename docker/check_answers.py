"""Ask a running service about the test images; status 1 if an answer is not the known label.

    python3 docker/check_answers.py HOST:PORT tests/data

The folder has the images and `labels.json`: {file name: label}. One more image is sent: noise, close to the largest
body that is accepted, whose label does not matter. Needs nothing but the standard library.
"""

import http.client
import json
import mimetypes
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

_TIMEOUT_S = 30.0
_SIDE = 1800  # pixels; uncompressed it makes 9.3 MiB


def main(address: str, folder: Path) -> int:
    """Print a line per image.

    Args:
        address: `HOST:PORT` of the service.
        folder: images and their labels.
    """
    labels: dict[str, str] = json.loads((folder / "labels.json").read_text("utf-8"))
    wrong = [name for name, label in labels.items() if not _is_right(address, folder / name, label)]
    status, _ = _classify(address, _noise_png(_SIDE), "image/png")
    _say(f"{'noise':32} {status}")
    _say(f"{len(labels) - len(wrong)} of {len(labels)} labels are right")
    return 0 if labels and not wrong and status == 200 else 1


def _is_right(address: str, path: Path, label: str) -> bool:
    status, reply = _classify(address, path.read_bytes(), mimetypes.guess_type(path.name)[0] or "image/webp")
    best = reply["results"][0]["predictions"][0] if status == 200 else {"label": reply, "score": 0.0}
    _say(f"{path.name:32} {status} {best['label']} {best['score']:.2f}, known: {label}")
    return bool(best["label"] == label)


def _classify(address: str, body: bytes, media_type: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
    connection.request("POST", "/classify", body, {"Content-Type": media_type})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def _noise_png(side: int) -> bytes:
    rows = b"".join(b"\0" + os.urandom(3 * side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
