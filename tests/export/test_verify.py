"""Verification covers what serving will send, and a difference cannot pass unseen."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from export import verify
from export.verify import Case, Difference
from model.manifest import Preprocessing
from model.rollout import attention_shares
from model.vit import VisionTransformer, decode_variant


def spec_of(native: tuple[int, int], max_patches: int) -> Preprocessing:
    return Preprocessing(patch_size=16, native_grid=native, max_patches=max_patches, resize="squash")


@pytest.mark.parametrize(
    ("native", "most"), [((14, 14), 784), ((7, 7), 100), ((16, 12), 192), ((1, 1), 1), ((3, 3), 7)]
)
def test_cases_keep_the_budget_and_reach_it(native: tuple[int, int], most: int) -> None:
    batches = verify.cases(spec_of(native, most))
    counts = {rows * columns for case in batches for rows, columns in case.grids}
    assert len(batches) >= 12
    assert min(counts) == 1
    assert max(counts) == most


def test_cases_hold_mixed_non_square_and_larger_than_native_grids() -> None:
    grids = [case.grids for case in verify.cases(spec_of((14, 14), 784))]
    assert any(len(set(batch)) > 1 for batch in grids)
    assert any(rows != columns for batch in grids for rows, columns in batch)
    assert any(rows > 14 and columns > 14 for batch in grids for rows, columns in batch)


def test_models_that_need_one_grid_a_batch_get_no_mixtures() -> None:
    batches = verify.cases(spec_of((14, 14), 784), mixed_grids=False)
    assert len(batches) >= 12
    assert all(len(set(case.grids)) == 1 for case in batches)


class SessionOf:
    """Stands in for ONNX Runtime: answers as a torch model does, with an error put in."""

    def __init__(self, model: VisionTransformer, error: float, *, only_in_batches: bool = False) -> None:
        self.model, self.error, self.only_in_batches = model, error, only_in_batches

    def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        with torch.inference_mode():
            outputs = self.model(torch.from_numpy(inputs["patches"].copy()), torch.from_numpy(inputs["grid"].copy()))
        if names == ["attention"]:
            shares = attention_shares(self.model, *(torch.from_numpy(each.copy()) for each in inputs.values()))
            return [shares.detach().numpy() + (0 if self.only_in_batches and len(shares) == 1 else self.error)]
        logits, embedding = (output.numpy().copy() for output in outputs)
        if not self.only_in_batches or len(logits) > 1:
            logits[-1, 0] += self.error
        return [logits, embedding][: len(names)]


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    torch.manual_seed(0)
    config, spec = decode_variant("Femto/7", classes=5)
    return VisionTransformer(replace(config, depth=1), spec).eval()


BATCHES = (Case("one", ((4, 4),)), Case("mixed", ((4, 4), (2, 3))))


@pytest.mark.parametrize(
    ("error", "only_in_batches", "passed"),
    [
        (0.0, False, [True, True]),
        (1e-3, False, [False, False]),
        (1e-3, True, [True, False]),
        (math.nan, False, [False, False]),
    ],
)
def test_an_error_is_found(model: VisionTransformer, error: float, only_in_batches: bool, passed: list[bool]) -> None:
    session = SessionOf(model, error, only_in_batches=only_in_batches)
    differences = list(verify.compare(session, model, "float32", BATCHES))  # type: ignore[arg-type]
    assert [difference.passed for difference in differences] == passed
    assert verify.report(differences)["passed"] == all(passed)


@pytest.mark.parametrize(
    ("error", "only_in_batches", "passed"),
    [(0.0, False, True), (1e-3, False, False), (1e-3, True, False), (math.nan, False, False)],
)
def test_an_error_of_attention_is_found(
    model: VisionTransformer, error: float, only_in_batches: bool, passed: bool
) -> None:
    session = SessionOf(model, error, only_in_batches=only_in_batches)
    found = verify._attention_difference(session, model, *_batch(model))  # type: ignore[arg-type]
    assert (found <= verify.TOLERANCE["float32"]) == passed


def _batch(model: VisionTransformer) -> tuple[Any, tuple[tuple[int, int], ...]]:
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (2, 16, model.preprocessing.patch_dim), np.uint8), ((4, 4), (2, 3))


def test_the_report_is_numbers_by_case() -> None:
    good = Difference("one", 1, "4x4", 1e-6, 2e-6, 0.0, 1e-4)
    document = verify.report([good, replace(good, case="two", logits=np.nan)])
    assert [case["passed"] for case in document["cases"]] == [True, False]
    assert document["max_embedding_difference"] == 2e-6
