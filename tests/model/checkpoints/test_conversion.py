"""Whatever shape a tensor has, a converter answers with a model or with one kind of error."""

import importlib
from collections.abc import Callable

import pytest
import torch

from benchmarks import references
from benchmarks.references import Reference
from model.checkpoints.conversion import add_zero_biases, square
from model.checkpoints.loading import CheckpointError

SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
MAKERS: dict[str, Callable[[], Reference]] = {
    "timm": lambda: references.from_timm("test_vit3", 1, img_size=64),
    "timm parallel": lambda: references.from_timm(
        "vit_dpwee_patch16_reg1_gap_256", 1, embed_dim=32, num_heads=2, img_size=64
    ),
    "timm hybrid": lambda: references.from_timm("vit_tiny_r_s16_p8_224", 1, img_size=64),
    "transformers": lambda: references.from_transformers("DeiTForImageClassificationWithTeacher", 1, **SMALL),
    "siglip": lambda: references.from_transformers("SiglipVisionModel (no head)", 1, **SMALL),
    "torchvision": lambda: references.from_torchvision("vit_b_32", 1),
    "jax": lambda: references.from_jax("R+Ti/16", 1),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("shape", [(), (3,), (5, 2), (1, 2, 3, 4, 5)])
def test_a_tensor_of_another_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    reference = MAKERS[name]()
    convert = importlib.import_module(f"model.checkpoints.from_{reference.family}").convert
    convert(reference.weights, reference.config)
    for key in reference.weights:
        with pytest.raises(CheckpointError):
            convert(dict(reference.weights) | {key: torch.zeros(shape)}, reference.config)


def test_biases_are_added_only_where_no_layer_of_the_kind_has_one() -> None:
    weights = {f"blocks.{index}.{layer}.weight": torch.ones(4, 2) for index in range(2) for layer in ("qkv", "project")}
    weights["blocks.1.project.bias"] = torch.ones(4)
    add_zero_biases(weights, ["qkv", "project"])
    assert torch.equal(weights["blocks.0.qkv.bias"], torch.zeros(4))
    assert "blocks.0.project.bias" not in weights


@pytest.mark.parametrize("count", [0, 2, 15, 195])
def test_a_table_that_is_not_square_is_refused(count: int) -> None:
    with pytest.raises(CheckpointError, match=f"{count} patches is not square"):
        square(count)
