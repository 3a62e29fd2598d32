"""Admission: what is accepted and what is refused at the door, in units of work.

Pure and synchronous, owned by the event loop's thread; the clock's readings are arguments. Work is counted from its
reservation to its answer. Two rates are learnt from finished work: patches a second of the engine and images a second
of one decode thread.

Of several processes each has an admission of its own; what they hold together is in the ledger.
"""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

from service.crowd import Crowd
from service.errors import Overloaded
from service.settings import AdmissionSettings

_MAX_RETRY_S = 60
_CHEAPEST_PIXELS = 50_000
# Shares of the time to a deadline that a request may be told to wait. With the first it is answered in time even if the
# engine has become slower by a third since its speed was learnt. Where most are refused a longer queue would gain
# nothing: the second is for recovering from an overload in seconds, whatever the engine does. The third is for those
# who give more time than the default.
_SHARE, _CROWDED_SHARE, _LONGEST_SHARE = 0.5, 0.2, 0.8


class Speed:
    """Units a second; this one is not known."""

    @property
    def per_s(self) -> float:
        """Units a second; 0 while nothing is known."""
        return 0.0

    def time_for(self, units: float) -> float:
        """Seconds that `units` take; 0 while nothing is known."""
        per_s = self.per_s
        return units / per_s if per_s > 0 else 0.0


class Rate(Speed):
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

    @property
    def all_per_s(self) -> float:
        """The same of all engines of the service."""
        return self.per_s


class Ledger:
    """What is accepted and not yet answered: here and, in `all_`, with the other processes of the service."""

    def __init__(self) -> None:
        self.queue_patches = 0
        self.upload_bytes = 0

    @property
    def all_queue_patches(self) -> int:
        """Patches accepted and not yet answered."""
        return self.queue_patches

    @property
    def engine_queue_patches(self) -> int:
        """Patches before the engine that this process gives its images to."""
        return self.all_queue_patches

    @property
    def all_upload_bytes(self) -> int:
        """Bytes of uploads in memory."""
        return self.upload_bytes

    def add_patches(self, count: int) -> None:
        """Count patches in, or out when negative."""
        self.queue_patches += count

    def add_bytes(self, count: int) -> None:
        """Count bytes of uploads in, or out when negative."""
        self.upload_bytes += count


def crowded_wait_s(settings: AdmissionSettings) -> float:
    """The longest that a request with the default deadline waits for where most are refused, seconds."""
    return _CROWDED_SHARE * settings.default_timeout_ms / 1000


def decode_cost(width: int, height: int) -> int:
    """What decoding an image of so many pixels costs, in pixels; a tiny one costs as much as `_CHEAPEST_PIXELS`."""
    return width * height + _CHEAPEST_PIXELS


class Admission:
    """The gate in front of decoding and the queue.

    Args:
        settings: the bounds.
        decode_threads: images decoded at a time in this process.
        engine_speed: patches a second.
        ledger: what all processes of the service hold.
        busy_patches: so many keep every lane of the engine busy; no crowd makes the queue shorter than that.
        jitter: a number from 0 to 1, new at each call; spreads the retries of refused clients.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        decode_threads: int,
        engine_speed: Speed,
        ledger: Ledger | None = None,
        jitter: random.Random | None = None,
        busy_patches: int = 0,
    ) -> None:
        self._settings = settings
        self._decode_threads = decode_threads
        self._engine_speed = engine_speed
        self._jitter = jitter or random.Random()  # noqa: S311 - not a secret
        self._busy_patches = busy_patches
        self._crowd = Crowd()
        self.ledger = ledger or Ledger()
        self.decode_rate = Rate()  # of decode cost, a second of one thread
        self.undecoded_cost = 0

    def check_open(self, now_s: float = 0.0, timeout_s: float = math.inf) -> None:
        """Refuse before a body is read when nothing more could be accepted anyway.

        Args:
            now_s: on the clock.
            timeout_s: of the request.

        Raises:
            Overloaded: if the queue or the upload memory is full, or if the answer would come too late.
        """
        full = self.ledger.all_queue_patches >= self._settings.max_queue_patches
        full = full or self.ledger.all_upload_bytes >= self._settings.max_upload_memory_bytes
        if full or self._too_late(now_s, timeout_s):
            self._crowd.refuse(now_s)
            raise self.refusal()

    @contextmanager
    def reserve(self, patches: int, now_s: float, deadline_s: float) -> Iterator[None]:
        """Hold room for one image of `patches` until its answer.

        Raises:
            Overloaded: if the queue is full, or so long that the image might not be answered before its deadline.
        """
        over = self.ledger.all_queue_patches + patches > self._settings.max_queue_patches
        if over or self._too_late(now_s, deadline_s - now_s):
            self._crowd.refuse(now_s)
            raise self.refusal()
        self._crowd.accept(now_s)
        self.ledger.add_patches(patches)
        try:
            yield
        finally:
            self.ledger.add_patches(-patches)

    def decode_begins(self, cost: int) -> None:
        """Count one more image as not yet decoded; see `decode_cost`."""
        self.undecoded_cost += cost

    def decode_ended(self, cost: int) -> None:
        """It is decoded, or will never be."""
        self.undecoded_cost -= cost

    @contextmanager
    def decoding(self, cost: int) -> Iterator[None]:
        """From `decode_begins` to `decode_ended`."""
        self.decode_begins(cost)
        try:
            yield
        finally:
            self.decode_ended(cost)

    @contextmanager
    def hold_upload(self) -> Iterator["UploadMemory"]:
        """The account of one request's body; what it took is given back at the end."""
        memory = UploadMemory(self)
        try:
            yield memory
        finally:
            self.ledger.add_bytes(-memory.taken)

    def take_upload(self, count: int) -> None:
        """Count `count` more bytes of uploads.

        Raises:
            Overloaded: if that is more than may be held.
        """
        if self.ledger.all_upload_bytes + count > self._settings.max_upload_memory_bytes:
            raise self.refusal()
        self.ledger.add_bytes(count)

    def _too_late(self, now_s: float, timeout_s: float) -> bool:
        return self.predicted_wait_s() > self._allowed_s(now_s, timeout_s)

    def _allowed_s(self, now_s: float, timeout_s: float) -> float:
        """How long a request may be told to wait."""
        share = _CROWDED_SHARE if self._crowd.is_mostly_refused(now_s) else _SHARE
        run_s = self._engine_speed.time_for(self._busy_patches)  # of one image in its lane, when all lanes are busy
        allowed_s = max(self._part(share, timeout_s), run_s)
        return max(0.0, min(allowed_s, _LONGEST_SHARE * timeout_s, timeout_s - run_s))

    def _part(self, share: float, timeout_s: float) -> float:
        """This share of the time; who gives more than the default leaves as much as the default would leave."""
        default_s = self._settings.default_timeout_ms / 1000
        return max(share * timeout_s, timeout_s - (1 - share) * default_s)

    def predicted_wait_s(self) -> float:
        """How long the work accepted so far will take; an empty house never refuses, so a rate is always learnt."""
        decode_s = self.decode_rate.time_for(self.undecoded_cost) / self._decode_threads
        return max(self.engine_wait_s(), decode_s)

    def engine_wait_s(self) -> float:
        """How long the engine will need for what is accepted."""
        return self._engine_speed.time_for(self.ledger.engine_queue_patches)

    def refusal(self) -> Overloaded:
        """The answer to what is not accepted, with the time after which to try again."""
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
