"""What libraries really write, read back with the real converters: the same logits as the library's own model.

Pixels are given to both sides as they are; how images become pixels is tested beside `model.checkpoints.pixels`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.preprocess import patchify
from model.sources.load import load, locate
from model.sources.source import Source, parse_source

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def normalised(mean: Any, std: Any) -> Tensor:
    """[1, C, H, W]."""
    values = (IMAGE / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(values.transpose(2, 0, 1)[None]).float()


def logits(source: Source) -> Tensor:
    spec = source.model.preprocessing
    patches = torch.from_numpy(patchify(IMAGE, spec.patch_size)[None])
    with torch.inference_mode():
        found: Tensor = source.model(patches, torch.tensor([spec.native_grid]))[0]
    return found


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() < 1e-4 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pytorch_model.bin"])
def test_timm(tmp_path: Path, safe: bool) -> None:
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=64, num_classes=3).eval()
    save_for_hf(model, tmp_path, {"label_names": ["a", "b", "c"]}, safe_serialization=safe)
    source = load(locate(parse_source(str(tmp_path))))
    spec = source.model.preprocessing
    with torch.inference_mode():
        assert_close(logits(source), model(normalised(spec.mean, spec.std)))
    assert source.description.labels == ("a", "b", "c")
    assert spec.native_grid == (4, 4)


@pytest.mark.parametrize("shard_size", ["5GB", "40KB"], ids=["one file", "parts"])
def test_transformers(tmp_path: Path, shard_size: str) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=64,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        id2label={0: "cat", 1: "dog", 2: "cow"},
    )
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    assert (shard_size == "5GB") == (tmp_path / "model.safetensors").exists()
    source = load(locate(parse_source(str(tmp_path))))
    with torch.inference_mode():
        assert_close(logits(source), model(normalised([0.5] * 3, [0.5] * 3)).logits)
    assert source.description.labels == ("cat", "dog", "cow")
    assert (source.model.preprocessing.resize, source.model.preprocessing.interpolation) == ("squash", "bilinear")
    assert source.notes == ()


def test_transformers_without_a_head_is_a_feature_extractor(tmp_path: Path) -> None:
    import transformers

    config = transformers.ViTConfig(
        image_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    source = load(locate(parse_source(str(tmp_path))))
    assert source.model.config.classes == 0
    assert source.description.labels == ()
