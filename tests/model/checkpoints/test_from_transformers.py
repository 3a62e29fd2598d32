"""Models of transformers give the same answers after conversion, from the names that their files have."""

from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import coverage, references
from model.checkpoints import from_transformers
from model.checkpoints.loading import CheckpointError

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.mark.parametrize("name", references.HUGGING_FACE)
def test_answers_are_the_same_at_three_grids(name: str) -> None:
    result = coverage.run(name, partial(references.from_transformers, name, 2, **SMALL), export=False)
    assert result.refusal == ""
    assert result.torch is not None
    assert result.torch < 1e-5


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ViTForImageClassification", "bicubic"),
        ("Dinov2WithRegistersForImageClassification", "bicubic-antialias"),
    ],
)
def test_positions_are_resampled_as_the_class_does_it(name: str, kind: str) -> None:
    reference = references.from_transformers(name, 1, **SMALL)
    model = from_transformers.convert(reference.weights, reference.config)
    assert model.config.position_interpolation == kind
    assert model.preprocessing.native_grid == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "swin"}, "model_type 'swin' is not supported: vit, deit"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
        ({"num_attention_heads": "12"}, "num_attention_heads of config.json is '12'"),
    ],
)
def test_what_is_unknown_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    reference = references.from_transformers("ViTForImageClassification", 1, **SMALL)
    with pytest.raises(CheckpointError, match=message):
        from_transformers.convert(reference.weights, dict(reference.config) | changes)


def test_every_difference_is_listed() -> None:
    reference = references.from_transformers("ViTForImageClassification", 1, **SMALL)
    weights = dict(reference.weights) | {"vit.new.weight": torch.zeros(1)}
    del weights["vit.encoder.layer.0.layernorm_before.bias"]
    with pytest.raises(CheckpointError) as caught:
        from_transformers.convert(weights, reference.config)
    assert "missing (1): blocks.0.norm1.bias" in str(caught.value)
    assert "unexpected (1): new.weight" in str(caught.value)


def test_half_an_attention_is_refused() -> None:
    reference = references.from_transformers("ViTForImageClassification", 1, **SMALL)
    weights = {name: tensor for name, tensor in reference.weights.items() if not name.endswith("key.weight")}
    with pytest.raises(CheckpointError, match=r"has no blocks\.0\.attention\.key\.weight"):
        from_transformers.convert(weights, reference.config)
