"""The binary version of CIFAR: planes become images, cut files are refused."""

from pathlib import Path

import numpy as np
import pytest

from model.cifar import load_cifar
from model.data import DataError
from model.data_sets import load_data


def record(labels: list[int], seed: int) -> bytes:
    return bytes(labels) + np.random.default_rng(seed).integers(0, 256, 3072, np.uint8).tobytes()


def write_ten(root: Path) -> Path:
    root.mkdir()
    (root / "batches.meta.txt").write_text("airplane\nbird\n\n")
    for number in range(1, 6):
        (root / f"data_batch_{number}.bin").write_bytes(record([number % 2], number))
    (root / "test_batch.bin").write_bytes(record([0], 8) + record([1], 9))
    return root


def test_planes_become_images_in_order(tmp_path: Path) -> None:
    data = load_data(write_ten(tmp_path / "ten"), "train", 0)
    assert data.images.shape == (5, 3, 32, 32)
    assert data.targets.tolist() == [1, 0, 1, 0, 1]
    assert data.labels == ("airplane", "bird")
    assert data.images[2].numpy().tobytes() == record([1], 3)[1:]
    assert len(load_data(tmp_path / "ten", "test", 0)) == 2
    with pytest.raises(DataError, match="its 2 labels are not those of the model"):
        load_data(tmp_path / "ten", "test", 0, ("a", "b"))


def test_of_a_hundred_the_fine_label_counts(tmp_path: Path) -> None:
    (tmp_path / "fine_label_names.txt").write_text("apple\nbee\n")
    (tmp_path / "test.bin").write_bytes(record([9, 1], 0))
    data = load_cifar("test", tmp_path)
    assert data.targets.tolist() == [1]
    assert data.images[0].numpy().tobytes() == record([9, 1], 0)[2:]


def test_what_is_cut_off_or_missing_is_said(tmp_path: Path) -> None:
    root = write_ten(tmp_path / "ten")
    (root / "test_batch.bin").write_bytes(record([0], 8)[:-1])
    with pytest.raises(DataError, match="3072 bytes are no whole records of 3073: it is cut off"):
        load_cifar("test", root)
    (root / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: cannot be read"):
        load_cifar("train", root)
