"""Patches become the image they were cut from, and a stem keeps to its grid."""

import numpy as np
import pytest
import torch

from model.architecture import ViTConfig
from model.hybrid import PatchwiseStem, ResNetEmbedding, join_patches, split_patches
from model.manifest import Preprocessing
from model.preprocess import patchify

SPEC = Preprocessing(patch_size=16, native_grid=(2, 3), max_patches=6, resize="squash")
HYBRID = ViTConfig(32, 1, 2, 64, stem="resnetv2", stem_layers="1-1-1")


def test_joined_patches_are_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    patches = torch.from_numpy(patchify(image, 16))[None]
    joined = join_patches(patches, 2, 3, 16)
    assert torch.equal(joined[0], torch.from_numpy(image).permute(2, 0, 1))
    assert torch.equal(split_patches(joined, 2, 3, 16), patches)


@pytest.mark.parametrize(("layers", "patch", "stride"), [("", 32, 4), ("1-1-1", 16, 16), ("1-1-1-1", 32, 32)])
def test_a_patch_is_a_whole_number_of_strides(layers: str, patch: int, stride: int) -> None:
    config = ViTConfig(32, 1, 2, 64, stem="resnetv2", stem_layers=layers)
    embedding = ResNetEmbedding(config, Preprocessing(patch, (2, 3), 6, resize="squash"))
    assert (embedding.stem.stride, embedding.feature_patch) == (stride, patch // stride)
    patches = torch.zeros(2, 6, patch * patch * 3, dtype=torch.uint8)
    assert embedding(patches, torch.tensor([[2, 3]] * 2)).shape == (2, 6, 32)


def test_a_resnet_looks_beyond_a_patch_and_the_patchwise_stem_does_not() -> None:
    torch.manual_seed(0)
    patches = torch.randint(0, 256, (1, 6, 768), dtype=torch.uint8)
    changed = patches.clone()
    changed[0, 0] = 0
    grid = torch.tensor([[2, 3]])
    patchwise = PatchwiseStem(ViTConfig(32, 1, 2, 64, stem="patchwise"), SPEC)
    assert torch.equal(patchwise(patches, grid)[:, 1:], patchwise(changed, grid)[:, 1:])
    resnet = ResNetEmbedding(HYBRID, SPEC)
    assert not torch.allclose(resnet(patches, grid)[:, 1], resnet(changed, grid)[:, 1])


def test_padding_is_refused_where_it_would_enter_the_image() -> None:
    with pytest.raises(RuntimeError):
        ResNetEmbedding(HYBRID, SPEC)(torch.zeros(1, 7, 768, dtype=torch.uint8), torch.tensor([[2, 3]]))
