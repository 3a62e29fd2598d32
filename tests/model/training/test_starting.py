"""What a run starts from: the checkpoint's body, a head of zeros, positions of another size."""

from dataclasses import replace

import pytest
import torch
from shades import tiny_model

from model.manifest import Preprocessing
from model.training.starting import at_resolution, evaluated_side, freeze_all_but_head, with_new_head
from model.vit import VisionTransformer, decode_variant


def answers(model: VisionTransformer, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = side // model.preprocessing.patch_size
    generator = torch.Generator().manual_seed(0)
    patches = torch.randint(256, (2, rows * rows, model.preprocessing.patch_dim), generator=generator)
    with torch.no_grad():
        logits, embedding = model.eval()(patches.to(torch.uint8), torch.tensor([[rows, rows]] * 2))
    return logits, embedding


def test_a_new_head_is_zero_and_the_features_stay() -> None:
    old = tiny_model(5)
    new = with_new_head(old, 3)
    logits, embedding = answers(new, 28)
    assert torch.equal(logits, torch.zeros(2, 3))
    assert torch.equal(embedding, answers(old, 28)[1])
    assert old.config.classes == 5


def test_the_hidden_layer_of_a_head_goes_with_it() -> None:
    config, spec = decode_variant("Femto/7", classes=5)
    new = with_new_head(VisionTransformer(replace(config, depth=1, pre_logits=16), spec), 3)
    assert new.pre_logits is None
    assert answers(new, 28)[0].shape == (2, 3)


def test_both_heads_of_a_distilled_model_are_new() -> None:
    config, spec = decode_variant("Femto/7", classes=5)
    new = with_new_head(VisionTransformer(replace(config, depth=1, registers=1, distilled=True), spec), 3)
    assert torch.equal(answers(new, 28)[0], torch.zeros(2, 3))


@pytest.mark.parametrize("variant", ["Femto/7", "Femto/7:2d", "Femto/7:none"])
def test_at_another_resolution_images_of_that_size_are_answered_as_before(variant: str) -> None:
    old = tiny_model(variant=variant)
    new = at_resolution(old, 42)
    assert new.preprocessing.native_grid == (6, 6)
    assert new.preprocessing.max_patches == 4 * 36
    for ours, theirs in zip(answers(new, 42), answers(old, 42), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_relative_positions_go_to_another_resolution_too() -> None:
    new = at_resolution(tiny_model(variant="Femto/7:relative"), 42)
    assert all(answer.isfinite().all() for answer in answers(new, 42))


def test_the_proportion_of_the_crop_stays() -> None:
    config, spec = decode_variant("Ti/16")  # 224 pixels out of 256
    with torch.device("meta"):
        model = VisionTransformer(replace(config, depth=1), spec)
    model.to_empty(device="cpu")
    assert at_resolution(model, 448).preprocessing.resize_to == 512


@pytest.mark.parametrize("side", [30, 0, 7 * 700])
def test_a_side_must_be_whole_patches(side: int) -> None:
    with pytest.raises(ValueError, match="must be a multiple of the patch, 7 pixels, and at most 4096"):
        at_resolution(tiny_model(), side)


def test_a_model_used_below_its_table_starts_at_the_size_it_is_used_with() -> None:
    assert evaluated_side(Preprocessing(patch_size=14, native_grid=(37, 37), max_patches=256)) == 224
    assert evaluated_side(Preprocessing(patch_size=16, native_grid=(14, 14), max_patches=784)) == 224


def test_a_frozen_model_trains_its_head_alone() -> None:
    model = tiny_model()
    freeze_all_but_head(model)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == ["head.weight", "head.bias"]
