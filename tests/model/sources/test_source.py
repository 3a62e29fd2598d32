from typing import Any

import pytest

from model.checkpoints.loading import CheckpointError
from model.sources.source import Reference, model_name, parse_source


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("runs/model.safetensors", ("path", "runs/model.safetensors")),
        ("folder", ("path", "folder")),
        ("C:/models/vit.pth", ("path", "C:/models/vit.pth")),
        ("hf:google/vit-base-patch16-224", ("hub", "google/vit-base-patch16-224")),
        ("hf:org/name@v1.0", ("hub", "org/name", "v1.0")),
        ("hf:org/name@refs/pr/3", ("hub", "org/name", "refs/pr/3")),
        ("timm:vit_tiny_patch16_224.augreg_in21k", ("hub", "timm/vit_tiny_patch16_224.augreg_in21k")),
        ("torchvision:vit_b_16", ("torchvision", "vit_b_16")),
        ("torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1", ("torchvision", "vit_b_16", "IMAGENET1K_SWAG_E2E_V1")),
    ],
)
def test_what_a_source_may_look_like(text: str, reference: Any) -> None:
    assert parse_source(text) == Reference(*reference)


@pytest.mark.parametrize(
    "text", ["hf:", "hf:name", "hf:a/b/c", "hf:org/name@", "hf:../etc", "timm:", "timm:a/b", "torchvision:a b"]
)
def test_what_names_nothing_is_refused_with_the_known_forms(text: str) -> None:
    with pytest.raises(CheckpointError, match="names no checkpoint: a source is a file, a folder, hf:ORG/NAME"):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("vit_base_patch16_224.augreg", "vit_base_patch16_224.augreg"),
        ("ViT-L 32", "vit-l-32"),
        ("__", "model"),
        ("é", "model"),
        ("x" * 80, "x" * 64),
    ],
)
def test_a_model_name_is_one_that_a_manifest_allows(text: str, name: str) -> None:
    assert model_name(text) == name
