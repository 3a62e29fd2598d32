"""Decoding in processes that can be killed: what a hostile file may break is one of them, and its own image.

A decode thread takes a free worker, writes the file into the memory that the two share, waits for at most the timeout,
and copies the patches out. A worker that does not answer is killed, and a thread of its own starts the next one, so
that nobody waits for that who can have another worker. Nothing has a name in the file system: memory is a `memfd`,
sockets come in pairs. So nothing is left behind, whoever is killed: a worker whose owner is gone reads the end of its
socket, and ends.
"""

import json
import math
import mmap
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from model.headers import ImageHeader, ImageTooLarge, InvalidImage
from model.manifest import Preprocessing
from model.preprocess import PatchSequence
from service.decoding.messages import (
    MAX_DATAGRAM_BYTES,
    READY,
    Ending,
    Reply,
    Request,
    Setup,
    pack_request,
    unpack_reply,
)
from service.decoding.steps import Decoded, Place
from service.errors import DeadlineExceeded, Draining, StartError
from service.settings import ImageSettings

WORKER = "service.decoding.worker"  # the module whose `main` the processes run
# With the search path of this process: a worker must find the same code.
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from {} import main; main()"
# One thread, and a heap that keeps what one image leaves to the next: given back to the system, as the C library does
# by default, it would be page faults again, 0.3 ms of a 224x224 JPEG.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
}
_START_TIMEOUT_S = 30.0
_BURY_TIMEOUT_S = 5.0
_LONGEST_PAUSE_S = 5.0
_MEMORY_BASE_BYTES = 67_108_864  # of libraries and interpreter, whatever the image

Loss = Literal["timeout", "killed", "crashed"]


class WorkerObserver(Protocol):
    """Told about workers, by the thread in which it happens."""

    def worker_ready(self) -> None:
        """One more takes images."""

    def worker_lost(self, loss: Loss, status: int) -> None:
        """One that took images has gone: it was killed by us, by somebody else, or it failed; its exit status."""

    def worker_not_started(self, reason: str) -> None:
        """It will be tried again."""


class DecoderBugError(Exception):
    """The decoder raised what it promised not to; the message is the worker's traceback."""


class _WorkerLostError(Exception):
    def __init__(self, loss: Loss) -> None:
        super().__init__(loss)
        self.loss = loss


@dataclass(slots=True, eq=False)
class _Worker:
    process: "subprocess.Popen[bytes]"
    end: socket.socket
    memory: mmap.mmap


class ProcessDecoder:
    """Workers for the decode threads of one process; thread-safe.

    Args:
        settings: limits and number.
        spec: of the model.
        file_bytes: the largest file.
        workers: how many.
        observer: told about them.
    """

    def __init__(
        self, settings: ImageSettings, spec: Preprocessing, file_bytes: int, workers: int, observer: WorkerObserver
    ) -> None:
        patch_bytes = -(-spec.max_patches * spec.patch_dim // mmap.PAGESIZE) * mmap.PAGESIZE
        self._setup = Setup(
            spec,
            settings.formats,
            settings.exact_decode,
            patch_bytes,
            file_bytes,
            settings.decode_memory_bytes or decode_memory_bytes(settings.max_pixels, file_bytes),
            settings.decode_timeout_s,
        )
        self._number = workers
        self._observer = observer
        self._lock = threading.Lock()  # around the four below
        self._all: set[_Worker] = set()
        self._closed = False
        self._failed_starts = 0  # in a row
        self._ready = 0  # that have not been lost
        self._closing = threading.Event()
        self._free: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()  # None: closed

    def open(self) -> None:
        """Start the workers and wait until they are ready.

        Raises:
            StartError: if they are not.
        """
        if sys.platform != "linux":
            raise StartError("--decode-isolation process needs Linux: leave it at thread")
        try:
            for worker in [self._launch() for _ in range(self._number)]:
                self._await_ready(worker)
        except (OSError, _WorkerLostError) as error:
            self.close()
            for worker in list(self._all):  # launched, and awaited by nobody
                self._bury(worker)
            raise StartError(f"a decode worker could not be started: {error}") from None

    def close(self) -> None:
        """Kill all of them; a thread that is with one buries it, and gives up."""
        self._closing.set()
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(_BURY_TIMEOUT_S)
        self._bury_free()

    def quick(self, data: bytes, header: ImageHeader) -> bool:
        """Never: whoever calls waits for a worker."""
        return False

    def able(self) -> bool:
        """Whether there is a worker, or will be in a moment."""
        return self._failed_starts == 0 or self._ready > 0

    def decode(
        self, data: bytes, header: ImageHeader, grid: tuple[int, int], place: Place, deadline_s: float
    ) -> Decoded:
        """Decode one image in a worker.

        An image whose worker was killed by somebody else gets one more: an operator or a system without memory may
        have chosen any of them.

        Raises:
            ImageError: if it cannot be decoded, or not within the limits of time and memory, or if it broke the worker.
            DeadlineExceeded: if no worker was free before `deadline_s`.
            Draining: if this decoder was closed.
            DecoderBugError: if the worker failed in some other way, and lives.
            ValueError: if the file is larger than was promised.
        """
        if len(data) > self._setup.file_bytes:
            raise ValueError(f"a file of {len(data)} bytes, where {self._setup.file_bytes} have room")
        try:
            return self._decode_once(data, header, grid, place, deadline_s)
        except _WorkerLostError as error:
            if error.loss != "killed":
                raise _invalid(error, header) from None
        try:
            return self._decode_once(data, header, grid, place, deadline_s)
        except _WorkerLostError as error:
            raise _invalid(error, header) from None

    def _decode_once(
        self, data: bytes, header: ImageHeader, grid: tuple[int, int], place: Place, deadline_s: float
    ) -> Decoded:
        worker = self._take(deadline_s)
        started = time.monotonic()
        try:
            reply = self._ask(worker, data, Request(len(data), header, grid))
        except OSError as error:  # a TimeoutError, or nobody there
            raise self._lose(worker, timed_out=isinstance(error, TimeoutError)) from None
        try:
            _check(reply, header)
            patches = place()
            np.copyto(patches, np.frombuffer(worker.memory, np.uint8, patches.size).reshape(patches.shape))
        finally:
            self._give_back(worker)
        sequence = PatchSequence(patches, grid, *header.upright_size, header.format)
        return Decoded(sequence, time.monotonic() - started - reply.preprocess_s, reply.preprocess_s)

    def _take(self, deadline_s: float) -> _Worker:
        try:
            worker = self._free.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            raise DeadlineExceeded from None
        if worker is None:
            self._free.put(None)  # for the next one
            raise Draining
        return worker

    def _give_back(self, worker: _Worker) -> None:
        self._free.put(worker)
        if self._closed:  # perhaps since then
            self._bury_free()

    def _ask(self, worker: _Worker, data: bytes, request: Request) -> Reply:
        """Raises OSError if there is no answer that makes sense."""
        start = self._setup.patch_bytes
        worker.memory[start : start + len(data)] = data
        worker.end.send(pack_request(request))
        datagram = worker.end.recv(MAX_DATAGRAM_BYTES)
        try:
            return unpack_reply(datagram)
        except ValueError:  # empty: the worker is dead; anything else: it is not ours any more
            raise ConnectionError from None

    # --- life and death -----------------------------------------------------------------------------------------------
    def _launch(self) -> _Worker:
        """Start a process; it is not ready yet."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("patchserve-decode")
        size = self._setup.patch_bytes + self._setup.file_bytes
        try:
            os.ftruncate(memory, size)
            path = json.dumps([os.path.abspath(place) for place in sys.path])  # noqa: PTH100 - "" is the working folder
            numbers = theirs.fileno(), memory
            process = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-c", _PROGRAM.format(WORKER), path, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # or whoever reads ours would wait for a hung worker too
                stderr=subprocess.DEVNULL,
                pass_fds=numbers,
                env=os.environ | _ENVIRONMENT,
            )
            worker = _Worker(process, mine, mmap.mmap(memory, size))
            mine.send(pickle.dumps(self._setup))
        except OSError:
            mine.close()
            raise
        finally:
            theirs.close()  # so that its end is read here
            os.close(memory)
        with self._lock:
            self._all.add(worker)
            if self._closed:
                process.kill()
        return worker

    def _await_ready(self, worker: _Worker) -> None:
        worker.end.settimeout(_START_TIMEOUT_S)
        try:
            if worker.end.recv(MAX_DATAGRAM_BYTES) != READY:
                raise ConnectionError  # dead, like one whose socket fails
        except OSError as error:
            worker.process.kill()
            status = self._bury(worker)
            raise _WorkerLostError(_loss(status, timed_out=isinstance(error, TimeoutError))) from None
        worker.end.settimeout(self._setup.timeout_s)
        with self._lock:
            self._failed_starts = 0
            self._ready += 1
        self._observer.worker_ready()
        self._give_back(worker)

    def _lose(self, worker: _Worker, *, timed_out: bool) -> _WorkerLostError:
        if timed_out:
            worker.process.kill()
        status = self._bury(worker)
        with self._lock:
            self._ready -= 1
        loss = _loss(status, timed_out=timed_out)
        if self._closed:
            raise Draining
        self._observer.worker_lost(loss, status)
        threading.Thread(target=self._replace, name="decode-worker-start", daemon=True).start()
        return _WorkerLostError(loss)

    def _bury_free(self) -> None:
        """Those that no thread is with."""
        with suppress(queue.Empty):
            while True:
                if (worker := self._free.get_nowait()) is not None:
                    self._bury(worker)
        self._free.put(None)

    def _bury(self, worker: _Worker) -> int:
        """Its exit status, negative for a signal; nothing of it is left afterwards."""
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(_BURY_TIMEOUT_S)
        with self._lock:
            self._all.discard(worker)
        worker.end.close()
        with suppress(BufferError):  # patches are being copied out of it: it goes with them
            worker.memory.close()
        return worker.process.returncode or 0

    def _replace(self) -> None:
        """Start one worker, however long it takes."""
        while not self._closed:
            try:
                self._await_ready(self._launch())
            except (OSError, _WorkerLostError) as error:
                self._failed_starts += 1
                if not self._closed:
                    self._observer.worker_not_started(str(error))
                self._closing.wait(min(_LONGEST_PAUSE_S, 0.05 * 2**self._failed_starts))
            else:
                return


def decode_memory_bytes(max_pixels: int, file_bytes: int) -> int:
    """Address space that decoding any image within the limits needs.

    Measured at 50 megapixels, bytes a pixel: an animation-capable WebP 15.6, a progressive CMYK JPEG that is turned
    11.9, 16-bit grey with a transparent value 10.7, everything else less.
    """
    return 16 * max_pixels + 4 * file_bytes + _MEMORY_BASE_BYTES


def _check(reply: Reply, header: ImageHeader) -> None:
    """Raise what went wrong with the image; the worker is fine."""
    if reply.ending == Ending.TOO_LARGE:
        raise ImageTooLarge(f"the {header.format} is larger than Pillow's own limit: make it smaller")
    if reply.ending in {Ending.INVALID, Ending.OUT_OF_MEMORY}:
        raise InvalidImage(f"the {header.format} cannot be decoded ({reply.ending.name}): send the whole file")
    if reply.ending == Ending.BUG:
        raise DecoderBugError(reply.trace)
    if not math.isfinite(reply.preprocess_s) or reply.preprocess_s < 0:
        raise DecoderBugError("the worker's figures make no sense")


def _invalid(error: _WorkerLostError, header: ImageHeader) -> InvalidImage:
    return InvalidImage(f"the {header.format} broke its decoder ({error.loss}): save the image again")


def _loss(status: int, *, timed_out: bool) -> Loss:
    if timed_out:
        return "timeout"
    return "killed" if status == -signal.SIGKILL else "crashed"
