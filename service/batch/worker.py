"""One engine that classifies parts of an inventory and writes each down as soon as it is complete.

A run has one, or several, in processes of this machine (`service.batch.processes`) or on other machines too
(`service.batch.ray_data`).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.golden import golden_patches
from service.batch.classifier import Classifier, Row
from service.batch.inventory import Inventory
from service.batch.journal import Journal, disk_errors
from service.batch.results import save_part, schema_of, table_of
from service.engine import Model
from service.extras import Extras
from service.loaded import WarmEngine, open_engine
from service.predictions import MOST_RANKED
from service.processes.shares import Share, settings_of
from service.settings import Settings

_TELL_EVERY = 32  # images


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of each image.

    Attributes:
        k: labels.
        max_patches: a budget below the model's own.
        embeddings: a column of them.
    """

    k: int = 5
    max_patches: int | None = None
    embeddings: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A part that is on the disk."""

    part: int
    images: int
    errors: int


Tell = Callable[[int, int], None]  # of images that were classified, and how many of them have an error


def go_on() -> bool:
    """Nobody has asked to stop."""
    return False


def ignore(images: int, errors: int) -> None:
    """Nobody is told."""


class PartWorker:
    """Classifies parts.

    Attributes:
        model: of the engine.

    Args:
        engine: warm.
        settings: limits of images and batches, decode threads.
        wanted: of each image.
        path_of: where a part is written.
    """

    def __init__(self, engine: WarmEngine, settings: Settings, wanted: Wanted, path_of: Callable[[int], Path]) -> None:
        self.model = engine.model
        self._labels = engine.model.manifest.labels
        self._k = min(wanted.k, len(self._labels), MOST_RANKED)
        self._schema = schema_of(_embedding_width(engine) if wanted.embeddings else None)
        self._path_of = path_of
        self._classifier = Classifier(engine, settings, max_patches=wanted.max_patches, embeddings=wanted.embeddings)

    def run(
        self,
        inventory: Inventory,
        parts: Iterable[int],
        stopped: Callable[[], bool] = go_on,
        tell: Tell = ignore,
    ) -> Iterator[Finished]:
        """Classify parts one after the other, without a pause between them.

        Args:
            inventory: that they are of.
            parts: their numbers, taken when the images before them are on their way.
            stopped: whether to begin no more.
            tell: called now and then.

        Raises:
            BatchError: if the disk is full or the device fails for good.
        """
        begun: deque[int] = deque()
        rows: list[Row] = []
        for row in self._classifier.rows(inventory.entries(_noted(parts, begun, stopped))):
            rows.append(row)
            last = len(rows) == inventory.size(begun[0])
            if last or len(rows) % _TELL_EVERY == 0:
                told = rows[(len(rows) - 1) // _TELL_EVERY * _TELL_EVERY :]
                tell(len(told), _errors(told))
            if last:
                yield self._finish(begun.popleft(), rows)
                rows = []

    def close(self) -> None:
        """Take nothing more."""
        self._classifier.close()

    def _finish(self, part: int, rows: list[Row]) -> Finished:
        path = self._path_of(part)
        with disk_errors(path.parent):
            save_part(table_of(rows, self._labels, self._k, self._schema), path)
        return Finished(part, len(rows), _errors(rows))


def open_worker(settings: Settings, wanted: Wanted, journal: Journal) -> PartWorker:
    """A worker with an engine of its own.

    Raises:
        StartError: if the model is at fault.
    """
    return PartWorker(open_engine(settings), settings, wanted, journal.part)


def settings_of_one(settings: Settings, model: Model, engines: int, cores: int) -> Settings:
    """The settings of one of several engines.

    Args:
        settings: of the whole.
        model: that each of them has.
        engines: how many.
        cores: of one.
    """
    settings = settings_of(settings.model_copy(update={"replicas": engines}), Share((), cores))
    if settings.provider != "cpu" or settings.engine_lanes > 1 or settings.engine_threads > 1:
        return settings
    # One lane on one core wants the batches of a lane: docs/performance/engine.md, "Batches of a lane".
    most = max(settings.batch_patches(lanes=2), model.manifest.preprocessing.max_patches)
    small = {
        "max_batch_patches": settings.max_batch_patches or most,
        "batch_overhead_patches": settings.overhead_patches(lanes=2),
    }
    return settings.model_copy(update=small)


def _noted(parts: Iterable[int], begun: deque[int], stopped: Callable[[], bool]) -> Iterator[int]:
    for part in parts:
        if stopped():
            return
        begun.append(part)
        yield part


def _errors(rows: list[Row]) -> int:
    return sum(row.refusal is not None for row in rows)


def _embedding_width(engine: WarmEngine) -> int:
    spec = engine.model.manifest.preprocessing
    grid = np.asarray([spec.native_grid], np.int64)
    embeddings = engine.infer(golden_patches(spec)[None], grid, Extras.EMBEDDING).embeddings
    assert embeddings is not None  # noqa: S101 - they were asked for
    return int(embeddings.shape[1])
