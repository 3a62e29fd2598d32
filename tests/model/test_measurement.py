"""Evaluation counts what the served path answers, at every patch budget."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from model.checkpoints import native
from model.checkpoints.native import Description
from model.data import DataError, Entry
from model.data_sets import encoded
from model.evaluate import command
from model.headers import ImageLimits
from model.measurement import evaluate, predict
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
    entries = [Entry("", target, each) for each, target in zip(data, targets, strict=True)]
    result = evaluate(model, [*entries, Entry("", 0, b"not an image"), Entry("", 0, None)], 20, batch=3)
    assert (result.top1, result.images, result.unreadable) == (pytest.approx(4 / 6), 6, 2)
    assert result.top5 == 1  # of four classes
    assert result.mean_patches <= 20
    shares = [share for share in result.per_class if share is not None]
    counts = [targets.count(label) for label, share in enumerate(result.per_class) if share is not None]
    assert sum(share * count for share, count in zip(shares, counts, strict=True)) == pytest.approx(4)
    assert sum(each.images for each in result.calibration.bins) == 6


def test_a_smaller_budget_uses_fewer_patches(model: VisionTransformer) -> None:
    entries = [Entry("", 0, png(100, 100, 0))]
    used = [evaluate(model, entries, budget).mean_patches for budget in (4, 16, 49)]
    assert used == [4, 16, 49]


def test_nothing_readable_is_an_error(model: VisionTransformer) -> None:
    with pytest.raises(DataError, match="no readable image"):
        evaluate(model, [Entry("", 0, b"")], 16)


def test_folders_must_be_labels(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(png(8, 8, 0))
    (tmp_path / "cat" / "readme.txt").write_text("no image")
    assert [entry.target for entry in encoded(tmp_path, ("dog", "cat"))[1]] == [1]
    with pytest.raises(DataError, match="one sub-folder of images for each class"):
        encoded(tmp_path, ("dog",))


def test_the_command_writes_curve_report_and_plot(model: VisionTransformer, tmp_path: Path) -> None:
    checkpoint, report, plot = (tmp_path / name for name in ("m.safetensors", "report.json", "plot.png"))
    native.save(checkpoint, model, Description(("a", "b", "c", "d")))
    for label in "abcd":
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "x.png").write_bytes(png(30, 30, ord(label)))
    command(checkpoint, tmp_path / "data", "tiny", "16,4", write=True, report=report, plot=plot)
    results = json.loads(report.read_text())["results"]
    assert [each["max_patches"] for each in results] == [4, 16]
    assert len(results[0]["per_class"]) == 4
    accuracy = native.load(checkpoint)[1].accuracy
    assert accuracy.dataset == "tiny"
    assert [list(point) for point in accuracy.curve] == [[each["max_patches"], each["top1"]] for each in results]
    assert plot.read_bytes().startswith(b"\x89PNG")
