from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import COLOURS, picture
from numpy.typing import NDArray

from service.batch import classifier
from service.batch.classifier import Classifier
from service.batch.entries import Entry
from service.engine import Engine
from service.errors import BatchError, DeviceLostError, EngineError, OutOfMemoryError
from service.loaded import open_engine
from service.settings import Settings

SIZES = ((28, 28), (12, 40), (60, 20), (4, 4))


class Picky(Engine):
    """Fails on every batch with an image of pure blue, and on batches over its memory."""

    error: type[EngineError] | None = None
    most_images = 64
    runs = 0

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> Any:
        self.runs += 1
        if len(patches) > self.most_images:
            raise OutOfMemoryError("too large")
        if self.error and any(image[0, 2] > 200 for image in patches):
            raise self.error("blue")
        return super().run(patches, grid, alone=alone)


@pytest.fixture(params=[{}, {"engine_threads": 1, "engine_lanes": 1, "decode_threads": 1}], ids=["threads", "one-core"])
def settings(artifact: Path, request: pytest.FixtureRequest) -> Settings:
    return Settings(model=artifact, **request.param)


@pytest.fixture
def engine(settings: Settings) -> Picky:
    engine = Picky(settings)
    open_engine(settings, engine)
    return engine


@pytest.fixture
def rows(engine: Picky, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Classifier]:
    monkeypatch.setattr(classifier, "_WINDOW", 16)
    monkeypatch.setattr(classifier, "_AT_ONCE", 3)
    made = Classifier(engine, settings)
    yield made
    made.close()


def entries(count: int) -> list[Entry]:
    names = list(COLOURS)
    return [Entry(f"{n}", picture(names[n % 3], SIZES[n % 4], "PNG") if n % 7 else b"broken") for n in range(count)]


def test_rows_come_in_order_over_many_windows(rows: Classifier) -> None:
    found = list(rows.rows(iter(entries(100))))
    assert [row.key for row in found] == [str(number) for number in range(100)]
    for number, row in enumerate(found):
        assert (row.refusal is None) == bool(number % 7)
        if row.ranking is not None:
            assert row.ranking.indices[0] == number % 3


def test_images_of_one_length_share_batches(rows: Classifier, engine: Picky) -> None:
    engine.runs = 0
    list(rows.rows([Entry(str(n), picture(size=SIZES[n % 2])) for n in range(16)]))
    assert engine.runs <= 4


def test_an_image_on_which_the_engine_fails_fails_alone(rows: Classifier, engine: Picky) -> None:
    engine.error = EngineError
    found = list(rows.rows(entries(50)))
    for number, row in enumerate(found):
        codes = {"invalid_image"} if number % 7 == 0 else {"internal"} if number % 3 == 2 else {None}
        assert {row.refusal and row.refusal.code} == codes


def test_batches_over_the_memory_are_halved(rows: Classifier, engine: Picky) -> None:
    engine.most_images = 1
    assert sum(row.refusal is None for row in rows.rows(entries(50))) == 42


def test_a_lost_device_ends_the_run(rows: Classifier, engine: Picky) -> None:
    engine.error = DeviceLostError
    with pytest.raises(BatchError, match="the device has failed: blue; the same command goes on"):
        list(rows.rows(entries(50)))


def test_little_is_read_ahead(rows: Classifier) -> None:
    given = 0

    def count() -> Iterator[Entry]:
        nonlocal given
        for entry in entries(1000):
            given += 1
            yield entry

    stream = rows.rows(count())
    for _ in range(16):
        next(stream)
    assert given <= 8 * 16  # three windows, and what one core reads ahead
