"""A native checkpoint gives back the same model and description, and a wrong file is refused with the reason."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoints import native
from model.checkpoints.loading import CheckpointError, load_weights
from model.checkpoints.native import Description
from model.manifest import Accuracy
from model.vit import VisionTransformer, decode_variant

DESCRIPTION = Description(("a", "b"), "tiny", "1.2", "two letters", "MIT", "train", Accuracy("set", ((4, 0.25),)))


def small_model() -> VisionTransformer:
    config, spec = decode_variant("Femto/7", classes=2)
    return VisionTransformer(
        replace(config, depth=1, position_interpolation="bicubic-antialias", registers=2, layer_scale=True), spec
    ).eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    native.save(tmp_path / "m.safetensors", small_model(), DESCRIPTION)
    return tmp_path / "m.safetensors"


def test_round_trip(tmp_path: Path) -> None:
    model = small_model()
    native.save(tmp_path / "m.safetensors", model, DESCRIPTION)
    loaded, description = native.load(tmp_path / "m.safetensors")
    assert description == DESCRIPTION
    assert (loaded.config, loaded.preprocessing) == (model.config, model.preprocessing)
    patches, grid = torch.randint(0, 256, (1, 16, 147), dtype=torch.uint8), torch.tensor([[4, 4]])
    assert torch.equal(loaded(patches, grid)[0], model(patches, grid)[0])
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def rewrite(path: Path, **changes: str) -> None:
    description = {"config": None, "preprocessing": None, "description": None, "format": "patchserve", "schema": "1"}
    with native.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata.keys() == description.keys()
    save_file(load_file(path), path, metadata | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "pt"}, "not a checkpoint of patchserve"),
        ({"schema": "7"}, "checkpoint schema 7; this release reads 1"),
        ({"config": "{"}, "its metadata cannot be read"),
        ({"config": '{"width": 64}'}, "its metadata cannot be read"),
        ({"preprocessing": "{}"}, "'patch_size' is missing"),
        ({"description": json.dumps({"labels": ["a"], "accuracy": {"dataset": "", "curve": []}})}, "1 labels for 2"),
        ({"description": json.dumps({"labels": [], "accuracy": {"dataset": "", "curve": []}, "x": 1})}, "unknown"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(path: Path, changes: dict[str, str], message: str) -> None:
    rewrite(path, **changes)
    with pytest.raises(CheckpointError, match=message):
        native.load(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"{}" * 100])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        native.load(tmp_path / "x")


def test_a_truncated_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        native.load(path)


def test_every_difference_of_keys_and_shapes_is_listed_and_nothing_is_loaded() -> None:
    model, other = small_model(), small_model()
    weights = dict(other.state_dict())
    del weights["norm.bias"]
    weights["extra.weight"] = torch.zeros(1)
    weights["head.weight"] = torch.zeros(3, 64)
    before = model.norm.weight.clone()
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, weights)
    text = str(caught.value)
    assert "missing (1): norm.bias" in text
    assert "unexpected (1): extra.weight" in text
    assert "head.weight: the checkpoint has [3, 64], the model [2, 64]" in text
    assert torch.equal(model.norm.weight, before)
