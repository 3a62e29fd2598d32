"""The manifest reads back what it wrote and names every wrong field."""

import json
from dataclasses import replace
from typing import Any

import pytest

from model.manifest import Accuracy, Manifest, ManifestError, Preprocessing, Provenance

MANIFEST = Manifest(
    name="vit-b-16",
    version="1.0.0",
    labels=("tench", "goldfish"),
    preprocessing=Preprocessing(patch_size=16, native_grid=(14, 14), max_patches=784, resize_to=256),
    provenance=Provenance(source="random", libraries={"torch": "2.14.1"}),
    golden=((1, 4.5), (0, -1.25)),
    accuracy=Accuracy("imagenet-1k validation", ((98, 0.75), (196, 0.81))),
)


def changed(**fields: Any) -> str:
    return json.dumps(json.loads(MANIFEST.to_json()) | fields)


def test_round_trip() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_a_document_from_before_there_were_golden_logits_is_read() -> None:
    document = json.loads(MANIFEST.to_json())
    del document["golden"]
    assert Manifest.from_json(json.dumps(document)) == replace(MANIFEST, golden=())


def test_what_older_releases_do_not_know_is_written_only_where_it_says_something() -> None:
    assert "explain" not in json.loads(MANIFEST.to_json())
    explained = replace(MANIFEST, explain=True)
    assert Manifest.from_json(explained.to_json()) == explained


def test_document_is_flat_and_versioned() -> None:
    document = json.loads(MANIFEST.to_json())
    assert document["schema"] == 1
    assert document["patch_size"] == 16
    assert "preprocessing" not in document


def test_patch_dim_and_native_patches() -> None:
    assert MANIFEST.preprocessing.patch_dim == 768
    assert MANIFEST.preprocessing.native_patches == 196


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../etc/passwd"),
        ("explain", "yes"),
        ("golden", [[0]]),
        ("golden", [[0, "1"]]),
        ("golden", [[-1, 1.0]]),
        ("name", "Upper"),
        ("name", "a" * 65),
        ("name", ""),
        ("labels", ["cat", 3]),
        ("labels", "cat"),
        ("patch_size", 0),
        ("patch_size", True),
        ("patch_size", 16.0),
        ("channels", 1),
        ("patch_order", "channel,row,col"),
        ("native_grid", [14]),
        ("native_grid", [0, 14]),
        ("max_patches", 0),
        ("resize", "stretch"),
        ("resize", ["crop"]),
        ("resize_to", 100),
        ("resize_to", None),
        ("interpolation", "nearest"),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("nan")]),
        ("std", [0.5, 0.5, 0]),
        ("background", [0, 0, 256]),
        ("position_interpolation", "nearest"),
        ("mixed_grids", 1),
        ("precision", "float64"),
        ("accuracy", []),
        ("accuracy", {"dataset": "x", "curve": [[196, 0.8], [98, 0.7]]}),
        ("accuracy", {"dataset": "x", "curve": [[196, 80.0]]}),
        ("provenance", {"source": "x"}),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(ManifestError, match=f"'{field}' must be"):
        Manifest.from_json(changed(**{field: value}))


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.from_json(changed(name="?", std=[0, 0, 0], colour="red"))
    assert all(name in str(caught.value) for name in ("'name'", "'std'", "'colour'"))


def test_a_missing_field_is_named() -> None:
    document = json.loads(MANIFEST.to_json())
    del document["labels"]
    with pytest.raises(ManifestError, match="'labels' is missing"):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"schema": 2}', "{}"])
def test_other_documents_are_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("resize", "resize_to", "is_valid"),
    [
        ("crop", 224, True),
        ("crop", 223, False),
        ("crop", None, False),
        ("crop-floor", 256, True),
        ("crop-floor", None, False),
        ("squash", None, True),
        ("squash", 256, True),
        ("squash", 223, False),
        ("aspect", None, True),
        ("aspect", 256, False),
    ],
)
def test_resize_to_belongs_to_a_centre_crop(resize: Any, resize_to: int | None, is_valid: bool) -> None:
    document = replace(MANIFEST.preprocessing, resize=resize, resize_to=resize_to).to_dict()
    if is_valid:
        assert Preprocessing.from_dict(document).resize_to == resize_to
        return
    with pytest.raises(ManifestError, match=f"'resize_to' must be .* when 'resize' is {resize}"):
        Preprocessing.from_dict(document)


def test_golden_logits_are_of_classes_that_there_are() -> None:
    with pytest.raises(ManifestError, match=r"classes \[2\], but there are 2 labels"):
        Manifest.from_json(changed(golden=[[2, 1.0]]))


def test_a_feature_extractor_has_no_labels() -> None:
    assert Manifest.from_json(changed(labels=[], golden=[])).labels == ()
