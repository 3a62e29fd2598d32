"""Decoders that fail on command: the module that tests name instead of `service.decoding.worker`.

The width of an image is the command, for a decoder knows nothing else of it. `serve` is `patchserve` with such
decoders.
"""

import functools
import os
import resource
import signal
import sys
import time
from io import BytesIO
from typing import Any

from PIL import Image

from service.decoding import worker
from service.decoding.steps import decode_and_cut

ABORT, HANG, KILL, EAT, BUG, EXIT, LIE, TELL_LIMITS = range(61, 69)
LONG_S = 60.0


def decode(data: bytes, header: Any, *rest: Any, **how: Any) -> Any:
    """Obey, or decode."""
    command = header.width
    if command == ABORT:
        os.abort()
    elif command == HANG:
        time.sleep(LONG_S)
    elif command == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    elif command == EAT:
        _ = bytearray(resource.getrlimit(resource.RLIMIT_AS)[0])
    elif command == BUG:
        raise RuntimeError("a planted bug")
    elif command == EXIT:
        sys.exit(3)
    elif command == LIE:
        return decode_and_cut(data, header, *rest, **how)._replace(preprocess_s=float("nan"))
    return decode_and_cut(data, header, *rest, **how)


def command(width: int, height: int = 60) -> bytes:
    """An image of this width."""
    file = BytesIO()
    Image.new("RGB", (width, height), (220, 20, 20)).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    """As the worker's own."""
    worker.serve = functools.partial(worker.serve, decode=decode)  # type: ignore[assignment]
    worker.main()


def serve() -> None:
    """The program, with these decoders in threads and in processes."""
    from service.cli import main as patchserve
    from service.decoding import opening, processes

    class FaultyThreads(opening.ThreadDecoder):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named, decode=decode)

    opening.ThreadDecoder = FaultyThreads  # type: ignore[misc]
    processes.WORKER = "faulty_decoder"
    patchserve()
