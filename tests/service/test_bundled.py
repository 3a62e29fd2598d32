"""The bundled model: small, described, and right about images of every size and format that it ships with."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model.headers import ImageLimits
from model.preprocess import PatchSequence, preprocess
from service.artifacts import bundled_model
from service.batching import assemble
from service.engine import Engine
from service.settings import EngineSettings

DATA = Path(__file__).parents[1] / "data"
LABELS: dict[str, str] = json.loads((DATA / "labels.json").read_text())


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineSettings())


def sequence_of(engine: Engine, name: str) -> PatchSequence:
    return preprocess((DATA / name).read_bytes(), engine.model.manifest.preprocessing, ImageLimits())


def test_it_is_small_and_says_what_it_is(engine: Engine) -> None:
    manifest = engine.model.manifest
    assert bundled_model().stat().st_size <= 8_000_000
    assert (manifest.name, len(manifest.labels)) == ("fashion-mnist", 10)
    assert manifest.provenance.licence == "MIT"
    assert "model.train" in (bundled_model().parent / "MODEL_CARD.md").read_text()


def test_its_recorded_accuracy_is_best_at_the_native_grid_and_over_88_percent(engine: Engine) -> None:
    manifest = engine.model.manifest
    budget, top1 = manifest.accuracy.curve[-1]
    assert budget == manifest.preprocessing.native_patches
    assert top1 == max(each for _, each in manifest.accuracy.curve) >= 0.88
    assert len(manifest.accuracy.curve) >= 4


@pytest.mark.parametrize("name", LABELS)
def test_it_knows_the_test_images(engine: Engine, name: str) -> None:
    logits = engine.run(*assemble([sequence_of(engine, name)]))
    assert engine.model.manifest.labels[int(logits[0].argmax())] == LABELS[name]


def test_every_size_gets_in_one_batch_the_logits_that_it_gets_alone(engine: Engine) -> None:
    sequences = [sequence_of(engine, name) for name in LABELS]
    assert len({len(sequence.patches) for sequence in sequences}) > 3
    together = engine.run(*assemble(sequences))
    for logits, sequence in zip(together, sequences, strict=True):
        assert np.array_equal(logits, engine.run(*assemble([sequence]))[0])


def test_a_lane_answers_with_the_same_bits_as_all_cores(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine._QUICK_S", 0.0)  # so that there are both widths
    lanes = Engine(EngineSettings(engine_lanes=2, engine_threads=2))
    batch = assemble([sequence_of(engine, name) for name in LABELS])
    with ThreadPoolExecutor(2) as callers:
        answers = list(callers.map(lambda alone: lanes.run(*batch, alone=alone), (True, False, False)))
    for answer in answers:
        assert np.array_equal(answer, engine.run(*batch))
