"""A process that decodes one image after the other and may be killed at any time.

It has one thread and holds nothing that anybody else needs: a socket, and memory that it shares with its owner alone.
Bounded by itself: address space (`RLIMIT_AS`), time (an alarm that no C code can hold up, for a worker whose owner has
died), no core dumps, and the first choice of the kernel when memory runs out. It ends when its owner does. It imports
no more than decoding needs, for it must be there again soon.
"""

import mmap
import pickle
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.headers import ImageError, ImageTooLarge
from service.decoding.messages import (
    MAX_DATAGRAM_BYTES,
    READY,
    Ending,
    Reply,
    Request,
    Setup,
    pack_reply,
    unpack_request,
)
from service.decoding.steps import Decoded, decode_and_cut, warm_up_decoders

_ALARM_AFTER_S = 1.0  # the owner's own timeout, by which it knows why the worker is gone, comes first
_OOM_SCORE = "1000"  # killed before anything else


def main() -> None:
    """Serve one owner. Arguments: the numbers of the inherited socket and memory."""
    for each in (signal.SIGINT, signal.SIGTERM):  # sent to whole groups: the owner drains, and needs its workers
        signal.signal(each, signal.SIG_IGN)
    end = socket.socket(fileno=int(sys.argv[1]))
    setup: Setup = pickle.loads(end.recv(MAX_DATAGRAM_BYTES))  # noqa: S301 - from the process that started this one
    memory = mmap.mmap(int(sys.argv[2]), setup.patch_bytes + setup.file_bytes)
    _be_expendable()
    warm_up_decoders(setup.spec, setup.formats)
    _limit_memory(setup.memory_bytes)
    end.send(READY)
    serve(end, memory, setup)


def serve(end: socket.socket, memory: mmap.mmap, setup: Setup, decode: Callable[..., Decoded] = decode_and_cut) -> None:
    """Answer requests until the owner has gone."""
    while datagram := end.recv(MAX_DATAGRAM_BYTES):
        signal.setitimer(signal.ITIMER_REAL, setup.timeout_s + _ALARM_AFTER_S)
        reply = _answer(unpack_request(datagram), memory, setup, decode)
        signal.setitimer(signal.ITIMER_REAL, 0)
        end.send(pack_reply(reply))


def _answer(request: Request, memory: mmap.mmap, setup: Setup, decode: Callable[..., Decoded]) -> Reply:
    def place() -> NDArray[np.uint8]:
        shape = request.grid[0] * request.grid[1], setup.spec.patch_dim
        return np.frombuffer(memory, np.uint8, shape[0] * shape[1]).reshape(shape)

    try:
        data = memory[setup.patch_bytes : setup.patch_bytes + request.length]
        decoded = decode(data, request.header, setup.spec, request.grid, place, exact=setup.exact)
    except ImageTooLarge:
        return Reply(Ending.TOO_LARGE)
    except ImageError:
        return Reply(Ending.INVALID)
    except MemoryError:
        return Reply(Ending.OUT_OF_MEMORY)
    except Exception:  # noqa: BLE001 - told to the owner, who logs it
        return Reply(Ending.BUG, trace=traceback.format_exc())
    return Reply(Ending.DECODED, decoded.preprocess_s)


def _be_expendable() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the memory of this process is what clients sent
    with suppress(OSError):  # some sandboxes do not let it
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, "ascii")


def _limit_memory(more_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limit = pages * mmap.PAGESIZE + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
