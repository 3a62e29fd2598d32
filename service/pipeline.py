"""The order of work: header, admission, decoding, batch, best labels. One request is a list of jobs, one per image.

A job that fails keeps its error and skips the later steps; the others go on. Patches that a client has cut itself go
the same way, with a copy in the place of decoding.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.headers import ImageError, ImageHeader, ImageLimits, read_header
from model.manifest import Manifest
from model.preprocess import PatchSequence, choose_grid, enough
from service.admission import Admission, decode_cost
from service.decoding.steps import Decoder
from service.errors import DeadlineExceeded, Internal, NoPatchMemoryError, RequestError, from_image_error
from service.extras import Extras
from service.pixels import PixelBudget, after_decoding, pixels_to_decode
from service.predictions import Prediction, name_best
from service.scheduler import Inference
from service.tracing.references import SpanReference


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks for: `k` labels an image, at most `max_patches` patches, by `deadline_s` on the clock.

    `degradable` allows fewer patches under load. `extras` come with the inference. `origin` is the span of the request,
    if it has one.
    """

    k: int
    max_patches: int
    deadline_s: float
    degradable: bool = True
    extras: Extras = Extras.NONE
    origin: SpanReference | None = None


@dataclass(slots=True)
class Job:
    """One image on its way; `error` is set as soon as there will be no predictions.

    Attributes:
        data: the file; emptied once decoded.
        given: the patches where there is no file, in the memory of their request; let go once copied.
        grid: (rows, columns), known from the header.
        degraded: it would have had more patches under less load.
        decode_cost: see `service.admission.decode_cost`; known from the header.
        decoding: in a decode thread or, if quick, in the loop; leaves `sequence`, `decode_s` and `preprocess_s`.
        inferring: in the queue or in the engine.
        decode_began_s, decode_ended_s: on the clock; None: not, or not yet.
        queued_s: when it was given to the engine's queue, on the clock; None: it never was.
        decode_s: from the file to RGB.
        preprocess_s: after that, resizing and cutting into patches.
    """

    data: bytes = b""
    given: PatchSequence | None = None
    error: RequestError | None = None
    header: ImageHeader | None = None
    grid: tuple[int, int] = (0, 0)
    degraded: bool = False
    decode_cost: int = 0
    decoding: Future[None] | None = None
    sequence: PatchSequence | None = None
    decode_began_s: float | None = None
    decode_ended_s: float | None = None
    queued_s: float | None = None
    decode_s: float = 0.0
    preprocess_s: float = 0.0
    inferring: asyncio.Future[Inference] | None = None
    inference: Inference | None = None
    predictions: list[Prediction] = field(default_factory=list)


class PipelineObserver(Protocol):
    """Told about decoding."""

    def decode_started(self) -> None:
        """Decoding of an image began; called in the thread that decodes."""

    def decode_ended(self) -> None:
        """It is done with it; called in that thread."""

    def decoder_failed(self, error: BaseException) -> None:
        """Decoding raised something that is no `ImageError`."""


class Queue(Protocol):
    """The part of `service.scheduler.Scheduler` that is needed here."""

    def submit(
        self,
        sequence: PatchSequence,
        deadline_s: float,
        extras: Extras = Extras.NONE,
        origin: SpanReference | None = None,
    ) -> asyncio.Future[Inference]:
        """A future of the answer."""


class PatchMemory(Protocol):
    """Where patches are written; a place is free again when nobody holds its array."""

    def take(self, patches: int) -> NDArray[np.uint8]:
        """Memory for one image: uint8 [N, P*P*3]; called in a decode thread.

        Raises:
            NoPatchMemoryError: if there is no room.
        """


class LocalMemory:
    """The memory of this process. Args: values of a patch."""

    def __init__(self, patch_dim: int) -> None:
        self._patch_dim = patch_dim

    def take(self, patches: int) -> NDArray[np.uint8]:
        """Memory for one image: uint8 [N, P*P*3]."""
        return np.empty((patches, self._patch_dim), np.uint8)


class Pipeline:
    """Classifies the images of one request at a time; many requests may be inside.

    Args:
        manifest: of the model.
        limits: of an image.
        admission: the gate.
        queue: in front of the engine.
        memory: where patches are written for the engine.
        pool: the decode threads, for all but quick images.
        pixels: what they may hold together.
        decoder: what they call.
        clock: monotonic, seconds.
        observer: told about decoding.
        budget: the most patches of an image under the load of now; None: as many as are asked for.
        exact_decode: JPEGs are decoded at full size.
    """

    def __init__(
        self,
        manifest: Manifest,
        limits: ImageLimits,
        admission: Admission,
        queue: Queue,
        memory: PatchMemory,
        pool: ThreadPoolExecutor,
        pixels: PixelBudget,
        decoder: Decoder,
        clock: Callable[[], float],
        observer: PipelineObserver,
        budget: Callable[[], int | None],
        *,
        exact_decode: bool,
    ) -> None:
        self._manifest = manifest
        self._limits = limits
        self._admission = admission
        self._queue = queue
        self._memory = memory
        self._pool = pool
        self._pixels = pixels
        self._decoder = decoder
        self._clock = clock
        self._observer = observer
        self._budget = budget
        self._exact_decode = exact_decode

    async def classify(self, uploads: Sequence[bytes], wanted: Wanted) -> list[Job]:
        """Classify images; each job of the answer has predictions or an error, in the order of `uploads`."""
        jobs = [Job(data) for data in uploads]
        self._read_headers(jobs, wanted)
        return await self._answer(jobs, wanted)

    async def classify_cut(self, given: Sequence[PatchSequence], wanted: Wanted) -> list[Job]:
        """`classify` for images that are patches already, of 1 to `max_patches` each; none of them is degraded."""
        jobs = [Job(given=sequence, grid=sequence.grid) for sequence in given]
        return await self._answer(jobs, wanted)

    async def _answer(self, jobs: list[Job], wanted: Wanted) -> list[Job]:
        with ExitStack() as held:
            self._admit(jobs, wanted, held)
            if alive := _alive(jobs):
                await self._decode_and_infer(alive, wanted)
        self._name(jobs, wanted)
        return jobs

    def _read_headers(self, jobs: list[Job], wanted: Wanted) -> None:
        spec, budget = self._manifest.preprocessing, self._budget() if wanted.degradable else None
        for job in jobs:
            try:
                job.header = read_header(job.data, self._limits)
            except ImageError as error:
                job.error = from_image_error(error, self._limits)
                continue
            job.decode_cost = decode_cost(job.header.width, job.header.height)
            job.grid = choose_grid(*job.header.upright_size, spec, wanted.max_patches)
            if budget is not None and job.grid[0] * job.grid[1] > budget:
                job.grid, job.degraded = choose_grid(*job.header.upright_size, spec, budget), True

    def _admit(self, jobs: list[Job], wanted: Wanted, held: ExitStack) -> None:
        for job in _alive(jobs):
            patches = job.grid[0] * job.grid[1]
            try:
                held.enter_context(self._admission.reserve(patches, self._clock(), wanted.deadline_s))
            except RequestError as error:
                job.error = error

    async def _decode_and_infer(self, jobs: list[Job], wanted: Wanted) -> None:
        """Wait until every job has its inference or its error, at most until the deadline.

        The request's task sleeps all the while: the step between decoding and inference is taken in a callback, because
        waking a task costs the loop more than the step does.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(max(0.0, wanted.deadline_s - self._clock()), _end, ended)
        try:
            if len(jobs) == 1 and (header := jobs[0].header) and self._decoder.quick(jobs[0].data, header):
                self._decode_here(jobs[0], header, wanted)
                self._start_inference(jobs, wanted, ended)
            else:
                self._start_decoding(jobs, wanted, ended)
            await ended
        finally:
            timer.cancel()
            for job in jobs:
                self._settle(job)

    def _decode_here(self, job: Job, header: ImageHeader, wanted: Wanted) -> None:
        """In the loop, without a share of the pixels: to wait for a thread or a share costs more than the work."""
        job.decoding = Future()
        try:
            self._decode_now(job, header, wanted)
            job.decoding.set_result(None)
        except Exception as error:  # noqa: BLE001 - as from a pool: whoever wants the result gets it
            job.decoding.set_exception(error)

    def _start_decoding(self, jobs: list[Job], wanted: Wanted, ended: asyncio.Future[None]) -> None:
        loop, left = asyncio.get_running_loop(), len(jobs)

        def one_decoded(cost: int) -> None:
            nonlocal left
            left -= 1
            self._admission.decode_ended(cost)
            if left == 0 and not ended.done():
                self._start_inference(jobs, wanted, ended)

        def tell(cost: int, _: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop has been closed: nobody waits
                loop.call_soon_threadsafe(one_decoded, cost)

        for job in jobs:
            self._admission.decode_begins(job.decode_cost)
            step = self._decode_one if job.given is None else self._copy_one
            job.decoding = self._pool.submit(step, job, wanted)
            job.decoding.add_done_callback(partial(tell, job.decode_cost))

    def _start_inference(self, jobs: list[Job], wanted: Wanted, ended: asyncio.Future[None]) -> None:
        """All images of a request in the same turn of the loop, so that they can share a batch."""
        for job in jobs:
            job.error = self._error_of(job.decoding)
            job.data, job.given = b"", None
        ready = [(job, job.sequence) for job in _alive(jobs) if job.sequence is not None]
        left = len(ready)

        def one_answered(_: asyncio.Future[Inference]) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                _end(ended)

        if not ready:
            _end(ended)
        queued_s = self._clock()
        for job, sequence in ready:
            job.queued_s = queued_s
            if job.decode_cost:
                self._admission.decode_rate.observe(job.decode_cost, job.decode_s + job.preprocess_s)
            job.inferring = self._queue.submit(sequence, wanted.deadline_s, wanted.extras, wanted.origin)
            job.inferring.add_done_callback(one_answered)

    def _settle(self, job: Job) -> None:
        """Take what is there; for the rest nobody waits any more, because of the deadline or because we are cancelled.

        The futures go: their callbacks hold the jobs, and this circle would keep the patches in memory until the
        collector comes.
        """
        decoding, inferring, job.decoding, job.inferring = job.decoding, job.inferring, None, None
        for future in (decoding, inferring):
            if future is not None:
                future.cancel()
        job.error = job.error or self._error_of(decoding) or self._error_of(inferring)
        if job.error is None and inferring is not None:
            job.inference = inferring.result()

    def _copy_one(self, job: Job, wanted: Wanted) -> None:
        assert job.given is not None  # noqa: S101 - a job without has a file
        if self._clock() >= wanted.deadline_s:
            raise DeadlineExceeded
        place = self._place(job)
        np.copyto(place, job.given.patches, casting="no")
        job.sequence = replace(job.given, patches=place)

    def _decode_one(self, job: Job, wanted: Wanted) -> None:
        assert job.header is not None  # noqa: S101 - a job without one has an error and does not come here
        spec = self._manifest.preprocessing
        at_least = None if self._exact_decode else enough(job.header, spec, job.grid)
        pixels = pixels_to_decode(job.header, at_least)
        with self._pixels.hold(pixels, wanted.deadline_s - self._clock()):
            try:
                self._decode_now(job, job.header, wanted)
            finally:
                after_decoding(pixels)

    def _decode_now(self, job: Job, header: ImageHeader, wanted: Wanted) -> None:
        began_s = self._clock()
        if began_s >= wanted.deadline_s:
            raise DeadlineExceeded
        job.decode_began_s = began_s
        self._observer.decode_started()
        try:
            job.sequence, job.decode_s, job.preprocess_s = self._decoder.decode(
                job.data, header, job.grid, partial(self._place, job), wanted.deadline_s
            )
        finally:
            job.decode_ended_s = self._clock()
            self._observer.decode_ended()

    def _place(self, job: Job) -> NDArray[np.uint8]:
        try:
            return self._memory.take(job.grid[0] * job.grid[1])
        except NoPatchMemoryError:
            raise self._admission.refusal() from None

    def _error_of(self, future: Future[None] | asyncio.Future[Inference] | None) -> RequestError | None:
        """Why a step did not end well, or was not even begun; None if it did."""
        if future is None or future.cancelled() or not future.done():
            return DeadlineExceeded()
        error = future.exception()
        if isinstance(error, ImageError):
            return from_image_error(error, self._limits)
        if error is None or isinstance(error, RequestError):
            return error
        self._observer.decoder_failed(error)
        return Internal()

    def _name(self, jobs: list[Job], wanted: Wanted) -> None:
        for job in _alive(jobs):
            if job.inference is not None:
                job.predictions = name_best(job.inference.ranking, self._manifest.labels, wanted.k)


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _alive(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.error is None]
