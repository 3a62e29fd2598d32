"""Data sets load completely or say what is wrong; an unreadable image is listed, never fatal."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.data import DataError, LabelledImages, hold_out, load_class_folders, load_fashion_mnist


def write_idx(root: Path, stem: str, images: np.ndarray, targets: np.ndarray) -> None:
    (root / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images.tobytes()))
    (root / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + targets.tobytes()))


def test_fashion_mnist_is_read_in_order(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    write_idx(tmp_path, "t10k", images, np.array([9, 0, 4], np.uint8))
    data = load_fashion_mnist("test", tmp_path)
    assert np.array_equal(data.images[:, 0].numpy(), images)
    assert [data.labels[target] for target in data.targets] == ["Ankle boot", "T-shirt/top", "Coat"]


def test_a_missing_data_set_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        load_fashion_mnist("train", tmp_path)


def test_class_folders_are_labels_and_broken_images_are_listed(tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 30), colour).save(tmp_path / name / "one.png")
        Image.new("RGB", (64, 64), colour).save(tmp_path / name / "two.jpg")
    (tmp_path / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    (tmp_path / "red" / "notes.txt").write_text("not read")
    data = load_class_folders(tmp_path, 16)
    assert data.labels == ("green", "red")
    assert data.images.shape == (4, 3, 16, 16)
    assert data.targets.tolist() == [0, 0, 1, 1]
    assert (data.images[2, 0] > 250).all()
    assert len(data.skipped) == 1
    assert "broken.jpg" in data.skipped[0]


def test_labels_fix_the_order_and_an_unknown_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "b" / "x.png")
    assert load_class_folders(tmp_path, 8, ("c", "b")).targets.tolist() == [1]
    with pytest.raises(DataError, match=r"classes \['b'\] are not among the 1 labels"):
        load_class_folders(tmp_path, 8, ("a",))


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one sub-folder of images for each class"):
        load_class_folders(tmp_path / "nowhere", 8)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no readable image"):
        load_class_folders(tmp_path, 8)


def test_a_share_of_each_class_is_held_out_and_the_rest_stays() -> None:
    targets = torch.tensor([0] * 20 + [1] * 5 + [2])
    data = LabelledImages(torch.arange(26).view(26, 1, 1, 1).to(torch.uint8), targets, ("a", "b", "c"))
    rest, held = hold_out(data, 0.2, seed=0)
    assert torch.bincount(held.targets).tolist() == [4, 1]  # the only image of a class is learnt from
    assert sorted([*rest.images.flatten().tolist(), *held.images.flatten().tolist()]) == list(range(26))
    again, other = hold_out(data, 0.2, seed=0)[1], hold_out(data, 0.2, seed=1)[1]
    assert torch.equal(again.images, held.images)
    assert not torch.equal(other.images, held.images)
    assert len(hold_out(data, 0.0, seed=0)[1]) == 0
