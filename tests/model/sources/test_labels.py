import json
import sys
from pathlib import Path
from typing import Any

import pytest

from model.checkpoints.loading import CheckpointError
from model.sources.labels import fitting, in_order, of_imagenet, read_labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "cat\ndog\nred panda\n"),
        ("labels.txt", "\ufeffcat\r\ndog\r\nred panda\r\n\r\n"),
        ("labels.json", json.dumps(["cat", "dog", "red panda"])),
        ("labels.json", json.dumps({"2": "red panda", "0": "cat", "1": "dog"})),
    ],
)
def test_labels_from_a_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels(tmp_path / name, 3) == ("cat", "dog", "red panda")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.txt", "cat\ndog\n", "has 2 labels, but the model has 3 classes"),
        ("labels.json", "{", "cannot be read"),
        ("labels.json", '{"0": "a", "2": "c", "3": "d"}', "no label for index 1"),
        ("labels.json", '{"cat": 0}', "the keys of the object are not indices"),
        ("labels.json", "[1, 2, 3]", "neither a list of texts"),
        ("labels.json", '"cat"', "neither a list of texts"),
    ],
)
def test_a_wrong_file_of_labels_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_labels(tmp_path / name, 3)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_labels(tmp_path / "missing.txt", 3)


def test_indices_may_be_numbers_or_texts() -> None:
    assert in_order({1: "b", 0: "a"}) == in_order({"1": "b", "0": "a"}) == ("a", "b")


def test_labels_that_do_not_fit_become_numbers_and_are_said() -> None:
    notes: list[str] = []
    assert fitting(["a", "b"], 2, notes) == ("a", "b")
    assert fitting(None, 0, notes) == ()
    assert notes == []
    assert fitting(None, 2, notes) == ("class 0", "class 1")
    assert fitting(["a"], 2, notes) == ("class 0", "class 1")
    assert ["names no classes" in notes[0], "names 1 classes" in notes[1]] == [True, True]


@pytest.mark.parametrize(("classes", "first"), [(1000, "tench"), (21843, "organism"), (7, None)])
def test_imagenet_is_known_by_its_number_of_classes(classes: int, first: str | None) -> None:
    labels = of_imagenet(classes)
    assert (labels[0] if labels else None) == first
    assert labels is None or len(labels) == classes


@pytest.mark.parametrize(("missing", "known"), [(["timm"], True), (["timm", "torchvision"], False)])
def test_without_the_libraries_that_know_them_there_are_none(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], known: bool
) -> None:
    blocked: Any = None  # what makes an import fail
    for name in missing:
        monkeypatch.setitem(sys.modules, name, blocked)
        monkeypatch.setitem(sys.modules, f"{name}.{'data' if name == 'timm' else 'models'}", blocked)
    labels = of_imagenet(1000)
    assert (labels is not None and labels[:2] == ("tench", "goldfish")) == known
    assert of_imagenet(21843) is None
