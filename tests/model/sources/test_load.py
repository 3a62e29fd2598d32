"""Every layout of a checkpoint on this machine, with what comes along; converters have tests of their own."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoints import native
from model.checkpoints.loading import CheckpointError
from model.checkpoints.native import Description
from model.sources import converted, torchvision_file
from model.sources.load import load, locate, without_head
from model.sources.source import Reference, Source, parse_source
from model.vit import VisionTransformer, decode_variant

calls: list[tuple[str, dict[str, Any]]] = []


@pytest.fixture(autouse=True)
def _converters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converters that make a tiny model with as many classes as `head` has rows."""
    calls.clear()

    def stub(family: str) -> Callable[..., VisionTransformer]:
        def convert(weights: Mapping[str, Tensor], config: Mapping[str, Any], **_: Any) -> VisionTransformer:
            calls.append((family, dict(config)))
            classes = len(weights["head"]) if "head" in weights else 0
            return VisionTransformer(*decode_variant("Femto/7", classes=classes))

        return convert

    families = ("timm", "transformers", "torchvision", "jax")
    monkeypatch.setattr(converted, "_CONVERTERS", {family: stub(family) for family in families})


def opened(path: Path) -> Source:
    return load(locate(parse_source(str(path))))


def write(folder: Path, config: dict[str, Any] | None, classes: int = 3, **documents: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"head": torch.zeros(classes, 1)} if classes else {"x": torch.zeros(1)}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


def test_our_own_checkpoint_keeps_what_it_says_of_itself(tmp_path: Path) -> None:
    model = VisionTransformer(*decode_variant("Femto/7", classes=2))
    native.save(tmp_path / "m.safetensors", model, Description(("a", "b"), "tiny", licence="MIT"))
    source = opened(tmp_path / "m.safetensors")
    assert source.description.labels == ("a", "b")
    assert (source.provenance.source, source.provenance.licence) == ("m.safetensors", "MIT")
    assert source.notes == ()
    assert opened(tmp_path).provenance.sha256 == source.provenance.sha256  # a folder with one file


def test_timm_brings_labels_pixels_and_licence(tmp_path: Path) -> None:
    pretrained = {"input_size": [3, 28, 28], "crop_pct": 0.5, "interpolation": "bilinear", "license": "mit"}
    names = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "cat", "n3": "dog"}}
    source = opened(write(tmp_path / "some_vit", {"architecture": "x", "pretrained_cfg": pretrained} | names))
    assert [family for family, _ in calls] == ["timm"]
    assert source.description.labels == ("cat", "n2", "dog")
    assert source.description.name == "some_vit"
    assert source.provenance.licence == "mit"
    spec = source.model.preprocessing
    assert (spec.resize, spec.resize_to, spec.interpolation, spec.mean[0]) == ("crop", 56, "bilinear", 0.485)


def test_an_old_configuration_of_timm_is_one_level_flatter(tmp_path: Path) -> None:
    source = opened(write(tmp_path, {"architecture": "x", "input_size": [3, 28, 28], "crop_pct": 1.0}))
    assert source.model.preprocessing.resize_to == 28
    assert calls[0][1]["pretrained_cfg"]["crop_pct"] == 1.0


def test_transformers_brings_labels_and_pixels(tmp_path: Path) -> None:
    config = {"model_type": "vit", "id2label": {"0": "cat", "1": "dog", "2": "cow"}}
    processor = {"size": 28, "resample": 3, "image_mean": [0.1, 0.2, 0.3]}
    source = opened(write(tmp_path, config, preprocessor_config=processor))
    assert [family for family, _ in calls] == ["transformers"]
    assert source.description.labels == ("cat", "dog", "cow")
    assert source.model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert source.notes == ()


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    config = {"model_type": "vit", "image_size": 28, "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}
    source = opened(write(tmp_path, config))
    assert source.description.labels == ("class 0", "class 1", "class 2")
    assert len(source.notes) == 2
    assert "no preprocessor_config.json" in source.notes[0]
    assert "names no classes for 3 logits" in source.notes[1]
    assert source.model.preprocessing.resize_to is None  # the side is that of config.json


def test_a_checkpoint_in_parts_is_read_as_one(tmp_path: Path) -> None:
    write(tmp_path, {"model_type": "vit", "image_size": 28})
    (tmp_path / "model.safetensors").rename(tmp_path / "model-1.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"head": "model-1.safetensors", "x": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert opened(tmp_path).model.config.classes == 3


def test_a_file_of_jax_needs_nothing_beside_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "B_16.npz", head=np.zeros((3, 1), np.float32))
    source = opened(tmp_path / "B_16.npz")
    assert [family for family, _ in calls] == ["jax"]
    spec = source.model.preprocessing
    assert (spec.resize, spec.resize_to, spec.interpolation, spec.mean) == ("squash", None, "bilinear", (0.5,) * 3)
    assert "says nothing of pixels" in source.notes[0]


def torchvision_weights(width: int = 768, patch: int = 16) -> dict[str, Tensor]:
    projection = torch.zeros(1).expand(width, 3, patch, patch)
    return {"conv_proj.weight": projection, "encoder.pos_embedding": torch.zeros(1), "head": torch.zeros(3, 1)}


def test_a_file_of_torchvision_is_known_by_its_names(tmp_path: Path) -> None:
    torch.save(torchvision_weights(1024, 32), tmp_path / "mine.pth")
    source = opened(tmp_path / "mine.pth")
    assert calls == [("torchvision", {"architecture": "vit_l_32"})]
    assert "no published weights" in source.notes[0]
    torch.save(torchvision_weights(512, 16), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"\[512, 3, 16, 16\] is in no Vision Transformer of torchvision"):
        opened(tmp_path / "other.pth")


def test_published_weights_of_torchvision_are_known_by_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "vit_b_16_swag-9ac1b537.pth"  # as torch.hub would have left it
    torch.save(torchvision_weights(), path)
    bundle = locate(parse_source("torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1"))
    assert bundle.weights == (path,)
    assert bundle.origin == "torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1"
    assert "SWAG" in bundle.licence
    known = {load(bundle).provenance.sha256[:8]: ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")}
    monkeypatch.setattr(torchvision_file, "_WEIGHTS", known)
    source = load(bundle)
    assert source.model.preprocessing.interpolation == "bicubic"
    assert not any("published" in note for note in source.notes)


def test_the_hashes_are_those_of_torchvisions_catalogue() -> None:
    from torchvision import models

    for digest, (architecture, weights) in torchvision_file._WEIGHTS.items():
        assert models.get_model_weights(architecture)[weights].url.endswith(f"-{digest}.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:vit_b_15", "no Vision Transformer 'vit_b_15': it has vit_b_16, vit_b_32"),
        ("torchvision:vit_b_32@V9", "no weights 'V9': it has IMAGENET1K_V1"),
    ],
)
def test_what_torchvision_does_not_have(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        locate(parse_source(name))


def test_a_download_of_torchvision_that_fails_says_where_the_file_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fails)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(no route\): put the file at .*c867db91\.pth"):
        locate(parse_source("torchvision:vit_b_16"))


def test_files_without_a_known_owner_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no config\.json beside it"):
        opened(write(tmp_path / "a", None))
    with pytest.raises(CheckpointError, match="neither timm's"):
        opened(write(tmp_path / "b", {"model_cfg": {}}))
    (tmp_path / "b" / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        opened(tmp_path / "b")


def test_a_folder_must_hold_one_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none of model\.safetensors"):
        locate(Reference("path", str(tmp_path)))
    for name in ("one.pth", "two.pth"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"2 of them, one\.pth, two\.pth: name one"):
        locate(Reference("path", str(tmp_path)))
    with pytest.raises(CheckpointError, match="no such file; a source is"):
        locate(Reference("path", str(tmp_path / "missing.pth")))


def test_a_checkpoint_without_a_head_has_no_labels(tmp_path: Path) -> None:
    source = opened(write(tmp_path, {"model_type": "vit", "image_size": 28}, classes=0))
    assert source.model.config.classes == 0
    assert source.description.labels == ()
    assert without_head(source) is source


def test_dropping_the_head_changes_nothing_before_it() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(*decode_variant("Femto/7", classes=3)).eval()
    source = Source(model, Description(("a", "b", "c")), provenance=None)  # type: ignore[arg-type]
    dropped = without_head(source)
    assert (dropped.model.config.classes, dropped.description.labels) == (0, ())
    assert not any(name.startswith("head") for name in dropped.model.state_dict())
    patches, grid = torch.randint(0, 256, (2, 16, 147), dtype=torch.uint8), torch.tensor([[4, 4], [2, 8]])
    with torch.inference_mode():
        expected, found = model(patches, grid), dropped.model(patches, grid)
    assert torch.equal(found[-1], expected[1])
