"""Evaluation counts what the served path answers, at every patch budget."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from model.data import DataError
from model.evaluate import LabelledFile, evaluate, folder_files, predict
from model.headers import ImageLimits
from model.preprocess import preprocess
from model.vit import VisionTransformer, decode_variant


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    torch.manual_seed(0)
    config, spec = decode_variant("Femto/7", classes=4)
    return VisionTransformer(replace(config, depth=1), replace(spec, resize="aspect", resize_to=None)).eval()


def png(width: int, height: int, seed: int) -> bytes:
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    buffer = BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def test_top1_counts_right_answers_and_unreadable_files(model: VisionTransformer) -> None:
    data = [png(28 + seed, 40, seed) for seed in range(6)]
    right = [predict(model, [preprocess(each, model.preprocessing, ImageLimits(), max_patches=20)])[0] for each in data]
    targets = [*right[:4], *((label + 1) % 4 for label in right[4:])]
    files = [LabelledFile(each, target) for each, target in zip(data, targets, strict=True)]
    result = evaluate(model, [*files, LabelledFile(b"not an image", 0)], 20, batch=3)
    assert (result.top1, result.images, result.unreadable) == (pytest.approx(4 / 6), 6, 1)
    assert result.mean_patches <= 20


def test_a_smaller_budget_uses_fewer_patches(model: VisionTransformer) -> None:
    files = [LabelledFile(png(100, 100, 0), 0)]
    used = [evaluate(model, files, budget).mean_patches for budget in (4, 16, 49)]
    assert used == [4, 16, 49]


def test_nothing_readable_is_an_error(model: VisionTransformer) -> None:
    with pytest.raises(DataError, match="no readable image"):
        evaluate(model, [LabelledFile(b"", 0)], 16)


def test_folders_must_be_labels(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(png(8, 8, 0))
    (tmp_path / "cat" / "readme.txt").write_text("no image")
    assert [file.target for file in folder_files(tmp_path, ("dog", "cat"))] == [1]
    with pytest.raises(DataError, match="one sub-folder of images for each class"):
        folder_files(tmp_path, ("dog",))
