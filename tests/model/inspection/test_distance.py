"""Attention distance against values computed by hand: attention to itself, to all alike, to one neighbour."""

from dataclasses import replace

import pytest
import torch

from model.architecture import ViTConfig
from model.attention import Attention, masked_attention
from model.inspection.distance import attention_distances, mean_distance, patch_distances
from model.manifest import Preprocessing
from model.vit import VisionTransformer

SPEC = Preprocessing(patch_size=4, native_grid=(2, 2), max_patches=16, resize="squash")
CONFIG = ViTConfig(width=8, depth=2, heads=2, mlp_dim=8, classes=2)


def test_patches_are_as_far_apart_as_their_centres() -> None:
    between = patch_distances(torch.tensor([2, 3]), 4)
    assert between.shape == (6, 6)
    assert between[0].tolist() == pytest.approx([0, 4, 8, 4, 32**0.5, 80**0.5])
    assert torch.equal(between, between.T)


def test_who_attends_to_itself_looks_nowhere() -> None:
    between = patch_distances(torch.tensor([2, 3]), 4)
    assert mean_distance(torch.eye(6)[None], between).tolist() == [0]


def test_who_attends_to_all_looks_as_far_as_all_are_on_average() -> None:
    between = patch_distances(torch.tensor([2, 2]), 4)
    uniform = torch.full((1, 4, 4), 1 / 4)
    assert mean_distance(uniform, between).tolist() == pytest.approx([(0 + 4 + 4 + 32**0.5) / 4])


def test_the_class_token_is_left_out_and_heads_stand_alone() -> None:
    """Half of each patch's attention goes to a class token; of the rest head 0 keeps all, head 1 sends it next door."""
    between = patch_distances(torch.tensor([1, 2]), 4)
    own = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])
    other = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    assert mean_distance(torch.stack([own, other]), between).tolist() == [0, 4]


@pytest.mark.parametrize("changes", [{}, {"registers": 2}, {"positions": "relative"}, {"branches": 2}])
def test_a_model_without_preferences_attends_to_all_alike(changes: dict[str, int]) -> None:
    model = VisionTransformer(replace(CONFIG, **changes), SPEC).eval()  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, Attention):
            torch.nn.init.zeros_(module.qkv.weight)
    patches = torch.randint(0, 256, (1, 6, 48), dtype=torch.uint8)
    found = attention_distances(model, patches, torch.tensor([[2, 3]]))
    expected = patch_distances(torch.tensor([2, 3]), 4).mean().item()
    assert found.shape == (2, 4 if changes.get("branches") else 2)
    assert found.flatten().tolist() == pytest.approx([expected] * found.numel(), rel=1e-5)
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    assert all(module.attend is masked_attention for module in attentions)
