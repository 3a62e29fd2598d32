"""Models of timm give the same logits and embeddings after conversion, and what is unknown is refused by name."""

from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import coverage, references
from model.checkpoints import from_timm
from model.checkpoints.loading import CheckpointError

SMALL: dict[str, Any] = {"img_size": 64}
NARROW: dict[str, Any] = {"embed_dim": 128, "num_heads": 2} | SMALL

# One entry for each thing that families do differently.
ENTRIES = {
    "vit_base_patch16_224": NARROW,
    "vit_so400m_patch14_siglip_224": {"embed_dim": 144, "num_heads": 2, "img_size": 56},  # attention pooling
    "vit_so400m_patch16_siglip_gap_256": {"embed_dim": 144, "num_heads": 2} | SMALL,  # tanh GELU, average
    "vit_base_patch16_clip_quickgelu_224": NARROW,  # norm before the blocks, no bias of patches
    "vit_base_patch14_reg4_dinov2": NARROW | {"img_size": 56},  # registers, LayerScale, positions of patches alone
    "vit_giant_patch14_dinov2": NARROW | {"img_size": 56},  # SwiGLU in one matrix
    "aimv2_large_patch14_224": {"embed_dim": 256, "num_heads": 2, "img_size": 56},  # SwiGLU in two, RMS, no biases
    "beit3_base_patch16_224": NARROW,  # inner norms
    "vit_base_patch16_rpn_224": NARROW,  # norms after the branches
    "vit_small_patch16_18x2_224": NARROW,  # branches
    "vit_base_patch16_xp_224": NARROW,  # parallel, norms of queries and keys
    "vit_pwee_patch16_reg1_gap_256": NARROW,  # parallel, bias of the MLP by itself
    "vit_dwee_patch16_reg1_gap_256": NARROW,  # differential
    "vit_dpwee_patch16_reg1_gap_256": NARROW,  # differential and parallel
    "vit_base_patch16_radio_v3": NARROW,  # no norm at the end
    "vit_so150m_patch16_reg4_map_256": NARROW,  # registers beside attention pooling
    "test_vit3": SMALL,  # pooling over registers too
    "deit_base_distilled_patch16_224": NARROW,
    "vit_tiny_r_s16_p8_224": SMALL,
    "vit_small_r26_s32_224": SMALL,
    "vit_small_resnet50d_s16_224": SMALL | {"embed_dim": 192, "num_heads": 2},
    "vit_base_mci_224": SMALL,
}


@pytest.mark.parametrize("name", ENTRIES)
def test_answers_are_the_same_at_three_grids(name: str) -> None:
    result = coverage.run(name, partial(references.from_timm, name, 2, **ENTRIES[name]), export=False)
    assert result.refusal == ""
    assert result.torch is not None
    assert result.torch < 1e-5


def test_the_comparison_finds_a_small_error() -> None:
    def wrong() -> references.Reference:
        reference = references.from_timm("test_vit2", 2, img_size=64)
        weights = dict(reference.weights)
        weights["blocks.1.ls2.gamma"] = weights["blocks.1.ls2.gamma"] * 1.01
        return references.Reference("timm", weights, reference.config, reference.mean, reference.std, reference.answer)

    result = coverage.run("wrong", wrong, export=False)
    assert result.torch is not None
    assert result.torch > coverage.LIMIT
    assert not result.passed


@pytest.fixture(scope="module")
def reference() -> references.Reference:
    return references.from_timm("test_vit2", 2, img_size=64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vit_small_patch16_rope_224"}, "'rope' is not known"),
        ({"architecture": "vit_relpos_base_patch16_224.sw_in1k"}, "'relpos' is not known"),
        ({"architecture": "resnet50"}, "'resnet50' is not known"),
        ({}, "not supported"),
        ({"architecture": "test_vit2", "model_args": {"attn_layer": "x", "depth": 2}}, "model_args attn_layer are not"),
        ({"architecture": "test_vit2", "model_args": {"act_layer": "relu"}}, "act_layer 'relu' is not supported"),
        ({"architecture": "test_vit2", "model_args": {"embed_dim": 64}}, "nothing says how many attention heads"),
        ({"architecture": "vit_so400m_patch14_siglip_224"}, "nothing says how many attention heads a width of 64"),
        ({"architecture": "test_vit2", "global_pool": "avgmax"}, "global_pool 'avgmax' is not supported"),
    ],
)
def test_what_is_unknown_is_refused_by_name(
    reference: references.Reference, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_timm.convert(reference.weights, changes)


@pytest.mark.parametrize("lost", ["norm1.bias", "ls2.gamma", "mlp.fc2.bias", "attn.proj.weight"])
def test_a_tensor_that_is_not_there_is_named(reference: references.Reference, lost: str) -> None:
    weights = {name: tensor for name, tensor in reference.weights.items() if name != f"blocks.1.{lost}"}
    with pytest.raises(CheckpointError, match=r"missing \(1\): blocks\.1\."):
        from_timm.convert(weights, reference.config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.0.attn.rel_pos.table", r"unexpected \(1\): blocks\.0\.attn\.rel_pos\.table"),
        ("patch_embed.backbone.0.conv.weight", r"has no patch_embed\.backbone\.0\.bn\.weight"),
        ("gate", r"unexpected \(1\): gate"),
    ],
)
def test_a_tensor_that_is_too_many_is_named(reference: references.Reference, name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_timm.convert(dict(reference.weights) | {name: torch.zeros(1)}, reference.config)


@pytest.mark.parametrize("gone", ["pos_embed", "patch_embed.proj.weight", "blocks."])
def test_files_of_another_kind_are_refused(reference: references.Reference, gone: str) -> None:
    weights = {name: tensor for name, tensor in reference.weights.items() if not name.startswith(gone)}
    with pytest.raises(CheckpointError, match="the checkpoint has no"):
        from_timm.convert(weights, reference.config)


def test_without_a_head_it_is_a_feature_extractor(reference: references.Reference) -> None:
    weights = {name: tensor for name, tensor in reference.weights.items() if not name.startswith("head.")}
    model = from_timm.convert(weights, reference.config)
    logits, embedding = model(torch.zeros(1, 16, 768, dtype=torch.uint8), torch.tensor([[4, 4]]))
    assert (logits.shape, embedding.shape) == ((1, 0), (1, 64))


def test_preprocessing_fields_come_along(reference: references.Reference) -> None:
    model = from_timm.convert(
        reference.weights, reference.config, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bilinear"
    )
    spec = model.preprocessing
    assert (spec.patch_size, spec.native_grid, spec.max_patches) == (16, (4, 4), 64)
    assert (spec.mean, spec.std, spec.interpolation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    assert not model.training
