"""From a stream of images to a stream of rows in the same order, everything overlapped.

Windows of images are decoded by threads, sorted into batches by the rules of the service, and run in the lanes of its
engine while the next windows are decoded. A few windows are under way at a time, so memory stays flat.
"""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from model.headers import ImageError
from model.preprocess import PatchSequence, preprocess
from service.batch.entries import Entry, Refusal
from service.batch.one_core import SameThread, read_ahead
from service.batching import plan_batch
from service.cores import usable_cores
from service.errors import BatchError, DeviceLostError, EngineError, Internal, from_image_error
from service.extras import Extras, found_in
from service.loaded import WarmEngine, batch_limits
from service.predictions import Ranking
from service.runner import BatchRunner, Run
from service.settings import Settings

_WINDOW = 256  # images
_WINDOW_OF_A_THREAD = 128  # what an engine has taken no other can: with one decode thread it takes less ahead
_AT_ONCE = 16  # images that a decode thread takes: a task for each would cost a quick model a part of its speed
_DECODING = 2  # windows


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one image: `refusal`, or all of the others.

    Attributes:
        key: of the entry.
        refusal: why there is no answer.
        image: its facts; the patches are gone.
        ranking: its best classes.
        embedding: float32 [D], if wanted.
    """

    key: str
    refusal: Refusal | None = None
    image: "Facts | None" = None
    ranking: Ranking | None = None
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What an image is: size in pixels, upright; (rows, columns) of patches; format as Pillow names it."""

    width: int
    height: int
    grid: tuple[int, int]
    format: str


@dataclass(slots=True, eq=False)
class _Image:
    """One image on its way, in the terms of `service.batching.Waiting`."""

    key: str
    sequence: PatchSequence
    deadline_s: ClassVar[float] = math.inf
    cancelled: ClassVar[bool] = False

    @property
    def length(self) -> int:
        return len(self.sequence.patches)

    @property
    def grid(self) -> tuple[int, int]:
        return self.sequence.grid

    def answer(self, ranking: Ranking | None, embedding: NDArray[np.float32] | None) -> Row:
        """Its row; without a ranking, because the engine fails on it."""
        if ranking is None:
            return Row(self.key, Refusal.of(Internal()))
        facts = Facts(self.sequence.width, self.sequence.height, self.grid, self.sequence.format)
        return Row(self.key, None, facts, ranking, embedding)


_Decoded = list[_Image | Row]  # in order; a row where there is nothing to run


@dataclass(frozen=True, slots=True)
class _Running:
    """A window in the engine."""

    images: _Decoded
    batches: list[tuple[list[_Image], Future[Run]]]


class Classifier:
    """Classifies streams of images.

    Args:
        engine: warm.
        settings: limits of images and batches, decode threads.
        max_patches: a budget below the model's own.
        embeddings: whether rows have them.
    """

    def __init__(
        self, engine: WarmEngine, settings: Settings, *, max_patches: int | None = None, embeddings: bool = False
    ) -> None:
        self._spec = engine.model.manifest.preprocessing
        self._image_limits = settings.image_limits()
        self._max_patches, self._exact = max_patches, settings.exact_decode
        self._alone = engine.lanes.number == 1
        self._batch_limits = batch_limits(settings, engine.model, engine.lanes)
        memory = engine.open_memory(self._batch_limits)
        self._extras = Extras.EMBEDDING if embeddings else Extras.NONE
        threads = settings.decode_threads or usable_cores()
        self._one_core = self._alone and threads == settings.engine_threads == 1
        pool = SameThread() if self._one_core else None
        # Decoding is windows ahead, and on a machine with other work niceness would cost speed.
        self._runner = BatchRunner(engine, time.monotonic, memory, engine.lanes.number, polite=False, executor=pool)
        self._runner.warm_up()
        self._window = min(_WINDOW, _WINDOW_OF_A_THREAD * threads)
        self._pool = pool or ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def rows(self, entries: Iterable[Entry]) -> Iterator[Row]:
        """The row of each entry, in order.

        Raises:
            BatchError: if the device fails for good.
        """
        source = read_ahead(entries) if self._one_core else iter(entries)
        decoding: deque[list[Future[_Decoded]]] = deque()
        running: deque[_Running] = deque()
        self._refill(decoding, source)
        while decoding or running:
            if decoding:
                running.append(self._run(decoding.popleft()))
                self._refill(decoding, source)
            if len(running) > 1 or not decoding:
                yield from self._collect(running.popleft())

    def close(self) -> None:
        """Take nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._runner.close()

    def _refill(self, decoding: deque[list[Future[_Decoded]]], source: Iterator[Entry]) -> None:
        while len(decoding) < _DECODING and (window := list(islice(source, self._window))):
            shares = [window[start : start + _AT_ONCE] for start in range(0, len(window), _AT_ONCE)]
            decoding.append([self._pool.submit(self._decode, share) for share in shares])

    def _decode(self, entries: Sequence[Entry]) -> _Decoded:
        return [self._decode_one(entry) for entry in entries]

    def _decode_one(self, entry: Entry) -> _Image | Row:
        data = entry.read()
        if isinstance(data, Refusal):
            return Row(entry.key, data)
        try:
            sequence = preprocess(
                data, self._spec, self._image_limits, max_patches=self._max_patches, exact=self._exact
            )
        except ImageError as error:
            return Row(entry.key, Refusal.of(from_image_error(error, self._image_limits)))
        return _Image(entry.key, sequence)

    def _run(self, decoding: list[Future[_Decoded]]) -> _Running:
        images = [image for share in decoding for image in share.result()]
        # In this order a batch is a beginning of the list: planning on all that waits would be quadratic.
        waiting = sorted(
            (each for each in images if isinstance(each, _Image)), key=lambda each: (each.length, each.grid)
        )
        batches = []
        while waiting:
            batch = plan_batch(waiting[: self._batch_limits.max_images], 0.0, self._batch_limits).batch
            batches.append((batch, self._submit(batch)))
            del waiting[: len(batch)]
        return _Running(images, batches)

    def _collect(self, window: _Running) -> list[Row]:
        answers: dict[_Image, Row] = {}
        for batch, run in window.batches:
            answers |= self._answers(batch, run)
        return [image if isinstance(image, Row) else answers[image] for image in window.images]

    def _answers(self, batch: list[_Image], running: Future[Run]) -> dict[_Image, Row]:
        """Halve a batch that fails until each culprit is alone."""
        try:
            run = running.result()
        except DeviceLostError as error:
            raise BatchError(f"the device has failed: {error}; the same command goes on where this run ended") from None
        except EngineError:
            if len(batch) == 1:
                return {batch[0]: batch[0].answer(None, None)}
            middle = len(batch) // 2
            return self._again(batch[:middle]) | self._again(batch[middle:])
        return {
            image: image.answer(ranking, found_in(run.answers, place, image.length, self._extras).embedding)
            for place, (image, ranking) in enumerate(zip(batch, run.rankings, strict=True))
        }

    def _again(self, batch: list[_Image]) -> dict[_Image, Row]:
        return self._answers(batch, self._submit(batch))

    def _submit(self, batch: list[_Image]) -> Future[Run]:
        return self._runner.submit([each.sequence for each in batch], alone=self._alone, extras=self._extras)
