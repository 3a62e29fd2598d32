"""Files of the original layout give the same answers after conversion, at other sizes by the original's zoom."""

from functools import partial

import pytest
import torch

from benchmarks import coverage, references
from model.checkpoints import from_jax
from model.checkpoints.loading import CheckpointError


@pytest.mark.parametrize("name", ["B/16 of ImageNet-21k with pre-logits", "S/32 without a head", "R+Ti/16", "R26+S/32"])
def test_answers_are_the_same_at_three_grids(name: str) -> None:
    result = coverage.run(name, partial(references.from_jax, name, 1), export=False)
    assert result.refusal == ""
    assert result.torch is not None
    assert result.torch < 1e-5


@pytest.fixture(scope="module")
def reference() -> references.Reference:
    return references.from_jax("S/32 without a head", 1)


def test_everything_is_read_from_keys_and_shapes(reference: references.Reference) -> None:
    model = from_jax.convert(reference.weights)
    config = model.config
    assert (config.width, config.depth, config.heads, config.mlp_dim, config.classes) == (384, 1, 6, 1536, 0)
    assert (config.activation, config.position_interpolation) == ("gelu-tanh", "bilinear-align-corners")
    assert (model.preprocessing.patch_size, model.preprocessing.native_grid) == (32, (7, 7))


def test_names_of_files_with_an_optimiser_and_of_linen(reference: references.Reference) -> None:
    plain = from_jax.convert(reference.weights).state_dict()
    linen = (("LayerNorm_2", "LayerNorm_1"), ("Attention_1", "Attention_0"), ("MlpBlock_3", "MlpBlock_0"))
    renamed = {f"opt/target/{name}": tensor for name, tensor in reference.weights.items()}
    for old, new in linen:
        renamed = {name.replace(old, new): tensor for name, tensor in renamed.items()}
    for name, tensor in from_jax.convert(renamed).state_dict().items():
        assert torch.equal(plain[name], tensor)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"params/embedding/kernel": torch.zeros(1)}, "big_vision are not supported"),
        ({"embedding/kernel": torch.zeros(1)}, "has no Transformer/posembed_input/pos_embedding"),
    ],
)
def test_other_files_are_refused(names: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_jax.convert(names)
