"""Training learns, repeats itself under a seed, and continues after a kill as if nothing had happened."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from model.augment import Augmentation
from model.checkpoints import native
from model.checkpoints.native import Description
from model.data import LabelledImages
from model.train import Recipe, Run, learning_rate, start_run, train, train_epoch
from model.vit import VisionTransformer, decode_variant

RECIPE = Recipe(epochs=4, batch=32, learning_rate=3e-3)


def bright_and_dark(count: int = 128) -> LabelledImages:
    """Two classes that a mean tells apart."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(count) % 2
    noise = torch.randint(0, 90, (count, 1, 28, 28), generator=generator)
    return LabelledImages((noise + targets.view(-1, 1, 1, 1) * 150).to(torch.uint8), targets, ("dark", "bright"))


def new_run(recipe: Recipe = RECIPE) -> Run:
    torch.manual_seed(recipe.seed)
    config, spec = decode_variant("Femto/7", classes=2)
    spec = replace(spec, resize="aspect", resize_to=None)
    return start_run(VisionTransformer(replace(config, depth=1), spec), recipe)


def train_all(output: Path, run: Run, recipe: Recipe = RECIPE) -> list[dict[str, float]]:
    data = bright_and_dark()
    output.mkdir(exist_ok=True)
    quiet = Console(quiet=True)
    train(run, data, data, recipe, Augmentation(), Description(data.labels, "shades"), output, quiet)
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_it_learns_and_leaves_a_checkpoint_and_a_log(tmp_path: Path) -> None:
    log = train_all(tmp_path, new_run())
    assert [entry["epoch"] for entry in log] == [1, 2, 3, 4]
    assert log[-1]["top1"] > 0.9
    model, description = native.load(tmp_path / "model.safetensors")
    assert description.labels == ("dark", "bright")
    assert model.config.classes == 2


def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = new_run()
    train_all(tmp_path / "whole", whole)
    (tmp_path / "killed").mkdir()
    first = new_run()
    data = bright_and_dark()
    for _ in range(2):
        list(train_epoch(first, data, RECIPE, Augmentation()))
    first.save(tmp_path / "killed" / "state.pt", RECIPE)
    second = new_run()
    log = train_all(tmp_path / "killed", second)
    assert [entry["epoch"] for entry in log] == [3, 4]
    for left, right in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_another_recipe_does_not_continue_a_run(tmp_path: Path) -> None:
    new_run().save(tmp_path / "state.pt", RECIPE)
    other = replace(RECIPE, epochs=9)
    with pytest.raises(ValueError, match="belongs to a run with"):
        new_run(other).resume(tmp_path / "state.pt", other)


def test_weight_decay_is_on_matrices_alone() -> None:
    run = new_run()
    decayed, others = run.optimizer.param_groups
    assert all(weight.ndim == 2 for weight in decayed["params"])
    assert others["weight_decay"] == 0
    assert any(weight is run.model.positions.table for weight in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(run.model.parameters()))


def test_the_learning_rate_warms_up_then_falls_to_one_percent() -> None:
    rates = [learning_rate(step, 1000, Recipe(learning_rate=1.0)) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == pytest.approx(1.0) == rates[50]
    assert rates[51:] == sorted(rates[51:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)


def test_the_command_trains_on_class_folders(tmp_path: Path) -> None:
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (30 + index, 40), colour).save(tmp_path / "data" / name / f"{index}.png")
    arguments = ["--data", tmp_path / "data", "--output", tmp_path / "out", "--variant", "Femto/7", "--epochs", "1"]
    command = [sys.executable, "-m", "model.train", *map(str, arguments), "--batch", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "test top-1" in done.stdout
    _, description = native.load(tmp_path / "out" / "model.safetensors")
    assert description.labels == ("blue", "red")
    assert description.command.startswith("python -m model.train --data")
    again = subprocess.run([*command, "--epochs", "2"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert "choose another --output" in again.stderr
