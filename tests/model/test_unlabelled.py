"""Every image below a folder, whatever the folders in it; a broken one is skipped with the reason."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from model.data import DataError
from model.unlabelled import load_images


def test_all_images_below_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "a.png")
    Image.new("L", (5, 5), 255).save(tmp_path / "deep" / "deeper" / "b.PNG")
    (tmp_path / "deep" / "c.jpg").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")
    images, skipped = load_images(tmp_path, 8)
    assert images.dtype == torch.uint8
    assert images.shape == (2, 3, 8, 8)
    assert images[:, :, 0, 0].tolist() == [[255, 0, 0], [255, 255, 255]]
    assert len(skipped) == 1
    assert "c.jpg" in skipped[0]


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a folder with images \(\.jpeg"):
        load_images(tmp_path, 8)
    (tmp_path / "c.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no readable image \(1 could not be read\)"):
        load_images(tmp_path, 8)
