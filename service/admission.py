"""Admission: what is accepted and what is refused at the door, in units of work.

Pure and synchronous, owned by the event loop's thread; the clock's readings are arguments. Work is counted from its
reservation to its answer. Two rates are learnt from finished work: patches a second of the engine and images a second
of one decode thread.
"""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded
from service.settings import AdmissionSettings

_MAX_RETRY_S = 60


class Rate:
    """Units a second as a moving average, weighted by the time that the units took.

    Args:
        memory_s: seconds of work after which an old observation weighs 1/e.
    """

    def __init__(self, memory_s: float = 2.0) -> None:
        self._memory_s = memory_s
        self._units = 0.0
        self._seconds = 0.0

    def observe(self, units: float, seconds: float) -> None:
        """Learn that `units` took `seconds`."""
        keep = math.exp(-seconds / self._memory_s)
        self._units = self._units * keep + units
        self._seconds = self._seconds * keep + seconds

    @property
    def per_s(self) -> float:
        """Units a second; 0 while nothing is known."""
        return self._units / self._seconds if self._seconds > 0 else 0.0

    def time_for(self, units: float) -> float:
        """Seconds that `units` take; 0 while nothing is known."""
        return units / self.per_s if self.per_s > 0 else 0.0


class Admission:
    """The gate in front of decoding and the queue.

    Args:
        settings: the bounds.
        decode_threads: images decoded at a time.
        jitter: a number from 0 to 1, new at each call; spreads the retries of refused clients.
    """

    def __init__(self, settings: AdmissionSettings, decode_threads: int, jitter: random.Random | None = None) -> None:
        self._settings = settings
        self._decode_threads = decode_threads
        self._jitter = jitter or random.Random()  # noqa: S311 - not a secret
        self.engine_rate = Rate()  # patches a second
        self.decode_rate = Rate()  # images a second of one thread
        self.queue_patches = 0
        self.undecoded_images = 0
        self.upload_bytes = 0

    def check_open(self) -> None:
        """Refuse before a body is read when nothing more could be accepted anyway.

        Raises:
            Overloaded: if the queue or the upload memory is full.
        """
        full = self.queue_patches >= self._settings.max_queue_patches
        if full or self.upload_bytes >= self._settings.max_upload_memory_bytes:
            raise self._refusal()

    @contextmanager
    def reserve(self, patches: int, now_s: float, deadline_s: float) -> Iterator[None]:
        """Hold room for one image of `patches` until its answer.

        Raises:
            Overloaded: if the queue is full, or if the image could not be answered before its deadline.
        """
        over = self.queue_patches + patches > self._settings.max_queue_patches
        if over or now_s + self.predicted_wait_s() > deadline_s:
            raise self._refusal()
        self.queue_patches += patches
        try:
            yield
        finally:
            self.queue_patches -= patches

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Count one image as not yet decoded."""
        self.undecoded_images += 1
        try:
            yield
        finally:
            self.undecoded_images -= 1

    @contextmanager
    def hold_upload(self) -> Iterator["UploadMemory"]:
        """The account of one request's body; what it took is given back at the end."""
        memory = UploadMemory(self)
        try:
            yield memory
        finally:
            self.upload_bytes -= memory.taken

    def take_upload(self, count: int) -> None:
        """Count `count` more bytes of uploads.

        Raises:
            Overloaded: if that is more than may be held.
        """
        if self.upload_bytes + count > self._settings.max_upload_memory_bytes:
            raise self._refusal()
        self.upload_bytes += count

    def predicted_wait_s(self) -> float:
        """How long the work accepted so far will take; an empty house never refuses, so a rate is always learnt."""
        decode_s = self.decode_rate.time_for(self.undecoded_images) / self._decode_threads
        return max(self.engine_rate.time_for(self.queue_patches), decode_s)

    def _refusal(self) -> Overloaded:
        spread = 1.0 + 0.5 * self._jitter.random()
        return Overloaded(
            min(_MAX_RETRY_S, max(1, math.ceil(self.predicted_wait_s() * spread))), self._settings.overload_status
        )


class UploadMemory:
    """Bytes of one request's body."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.taken = 0

    def take(self, count: int) -> None:
        """Count `count` more bytes.

        Raises:
            Overloaded: if all uploads together are more than may be held.
        """
        self._admission.take_upload(count)
        self.taken += count
