"""Pre-training learns from corrupted patches alone, continues after a kill, and leaves an encoder to fine-tune."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from model import pretrain
from model.augment import Augmentation
from model.checkpoints import native
from model.corruption import draw_corruption
from model.loop import Loop, run_to_the_end
from model.pretexts import TARGETS, Target
from model.pretrain import MaskedPrediction, make_loop
from model.training.recipe import Recipe
from model.training.starting import with_new_head
from model.variants import decode_variant
from model.vit import VisionTransformer

RECIPE = Recipe(epochs=3, batch=16, learning_rate=3e-3)


def make_model(target: Target = "colour", variant: str = "Femto/7") -> MaskedPrediction:
    torch.manual_seed(0)
    config, spec = decode_variant(variant, classes=0)
    return MaskedPrediction(VisionTransformer(replace(config, depth=1), spec), target)


def halves(count: int = 64) -> Tensor:
    """Images of two colours: what a patch is can be told from its neighbours."""
    images = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
    images[::2, :, :14] = 200
    images[1::2, :, :, :14] = 120
    return images


def grey_loop(recipe: Recipe = RECIPE, target: Target = "colour") -> Loop:
    return make_loop(make_model(target), halves(), Augmentation(native_share=1.0, zoom=(1, 1), shift=0), recipe)


@pytest.mark.parametrize("target", TARGETS)
def test_the_loss_falls(target: Target) -> None:
    loop = grey_loop(target=target)
    epochs = [list(loop.run_epoch()) for _ in range(3)]
    assert epochs[-1][-1] < 0.7 * epochs[0][0]


@pytest.mark.parametrize("variant", ["Femto/7:relative", "R8+Femto/8"])
def test_every_parameter_of_the_encoder_learns(variant: str) -> None:
    model = make_model(variant=variant)
    patches = torch.randint(0, 256, (4, 9, model.encoder.preprocessing.patch_dim), dtype=torch.uint8)
    model(patches, torch.tensor([[3, 3]] * 4), torch.Generator().manual_seed(0)).backward()
    still = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert still == set()


def test_nothing_is_asked_of_patches_that_are_not_corrupted() -> None:
    """Other pixels in an untouched patch change what is known, not what is asked; padding changes nothing at all."""
    model = make_model()
    asked: list[Tensor] = []

    class Asked:
        outputs = 512

        def loss(self, predicted: Tensor, patches: Tensor) -> Tensor:
            asked.append(patches)
            return predicted.square().mean()

    model.pretext = Asked()
    patches = torch.randint(0, 256, (2, 12, 147), dtype=torch.uint8)
    grid = torch.tensor([[3, 4], [2, 2]])
    loss = model(patches, grid, torch.Generator().manual_seed(3))
    corrupted = draw_corruption(grid.prod(1), 12, torch.Generator().manual_seed(3)).corrupted
    assert torch.equal(asked[0], patches[corrupted])
    assert len(asked[0]) == 6 + 2
    patches[1, 4:] = 255 - patches[1, 4:]
    torch.testing.assert_close(model(patches, grid, torch.Generator().manual_seed(3)), loss)


def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    whole = grey_loop()
    run_to_the_end(whole, folders[0], quiet, dict)
    first = grey_loop()
    list(first.run_epoch())
    first.save(folders[1] / "state.pt")
    second = grey_loop()
    run_to_the_end(second, folders[1], quiet, lambda: {"extra": 1})
    log = [json.loads(line) for line in (folders[1] / "log.jsonl").read_text().splitlines()]
    assert [(entry["epoch"], entry["extra"]) for entry in log] == [(2, 1), (3, 1)]
    for left, right in zip(whole.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(left, right)


def test_another_recipe_or_model_does_not_continue_a_run(tmp_path: Path) -> None:
    grey_loop().save(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="belongs to a run with Recipe"):
        grey_loop(replace(RECIPE, epochs=9)).resume(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="belongs to another model"):
        grey_loop(target="pixels").resume(tmp_path / "state.pt")


def test_weight_decay_is_on_matrices_and_kernels_alone() -> None:
    module = make_model(variant="R8+Femto/8:2d")
    loop = make_loop(module, halves(), Augmentation(), RECIPE)
    decayed, others = loop.optimizer.param_groups
    layers = [each for each in module.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    assert [id(weight) for weight in decayed["params"]] == [id(layer.weight) for layer in layers]
    assert others["weight_decay"] == 0
    assert len(decayed["params"]) + len(others["params"]) == len(list(module.parameters()))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        pretrain.main()
    if stopped.value.code not in (None, 0):
        raise RuntimeError(str(stopped.value.code))


def test_the_command_leaves_an_encoder_to_fine_tune(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "some").mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (30 + index, 40), (200, 30, 30 * index)).save(tmp_path / "data" / "some" / f"{index}.png")
    (tmp_path / "data" / "broken.jpg").write_bytes(b"no image")
    arguments = [tmp_path / "data", "--output", tmp_path / "out", "--variant", "Femto/7", "--target", "downsized"]
    run(monkeypatch, *arguments, "--epochs", 1)
    shown = capsys.readouterr().out.replace("\n", "")
    assert "epoch 1, loss" in shown
    assert "broken.jpg" in shown
    model, description = native.load(tmp_path / "out" / "model.safetensors")
    assert (model.config.classes, description.labels) == (0, ())
    assert "target: downsized" in description.description
    assert description.command.startswith("python -m model.pretrain ")
    assert with_new_head(model, 5).config.classes == 5
    with pytest.raises(RuntimeError, match=r"error: .*choose another --output"):
        run(monkeypatch, *arguments, "--epochs", 2)
