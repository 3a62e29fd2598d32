import hashlib
from dataclasses import replace

import numpy as np
import pytest
from tiny_artifact import MANIFEST

from model.golden import golden_of, golden_patches, golden_problem

GOLDEN_SHA256 = "9408db4f225405b718067bd704bc78e7e75dead93bb106d305a760c633949280"
LOGITS = np.array([0.5, 8.0, -3.0], np.float32)
MEASURED = replace(MANIFEST, golden=golden_of(LOGITS))


def test_the_golden_image_is_the_same_for_ever() -> None:
    patches = golden_patches(MANIFEST.preprocessing)
    assert patches.shape == (49, 48)
    assert hashlib.sha256(patches.tobytes()).hexdigest() == GOLDEN_SHA256
    assert len(np.unique(patches)) == 256


def test_the_best_logits_are_written_down() -> None:
    assert golden_of(LOGITS) == ((1, 8.0), (0, 0.5), (2, -3.0))
    assert len(golden_of(np.arange(1000, dtype=np.float32))) == 5
    assert golden_of(np.empty(0, np.float32)) == ()


def test_the_same_answer_is_no_problem() -> None:
    assert golden_problem(LOGITS, MEASURED) is None
    assert golden_problem(LOGITS + np.float32(0.007), MEASURED) is None
    assert golden_problem(LOGITS[::-1].copy(), MANIFEST) is None, "nothing was written down"


@pytest.mark.parametrize("wrong", [LOGITS + np.float32(0.01), LOGITS[[1, 0, 2]], np.full(3, np.nan, np.float32)])
def test_another_answer_is_one(wrong: np.ndarray) -> None:
    assert golden_problem(wrong, MEASURED) is not None


def test_a_model_that_rounds_may_differ_more() -> None:
    off = LOGITS + np.float32(0.3)
    assert golden_problem(off, MEASURED) is not None
    assert golden_problem(off, MEASURED, rounded=True) is None
    assert golden_problem(off, replace(MEASURED, precision="float16")) is None
