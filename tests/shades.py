"""Small data and a small model that tests of training share: two classes that a mean tells apart."""

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image

from model.checkpoints import native
from model.checkpoints.native import Description
from model.data import LabelledImages
from model.training.recipe import Recipe
from model.training.run import Run, start_run
from model.vit import VisionTransformer, decode_variant

RECIPE = Recipe(epochs=4, batch=32, learning_rate=3e-3)
COLOURS = {"blue": (30, 30, 200), "green": (30, 180, 30), "red": (200, 30, 30)}


def shades(count: int = 128) -> LabelledImages:
    """Dark and bright noise."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(count) % 2
    noise = torch.randint(0, 90, (count, 1, 28, 28), generator=generator)
    return LabelledImages((noise + targets.view(-1, 1, 1, 1) * 150).to(torch.uint8), targets, ("dark", "bright"))


def tiny_model(classes: int = 2, seed: int = 0, variant: str = "Femto/7") -> VisionTransformer:
    """Two blocks, 32 wide, patches of 7 pixels."""
    torch.manual_seed(seed)
    config, spec = decode_variant(variant, classes=classes)
    config = replace(config, width=32, depth=2, mlp_dim=64)
    return VisionTransformer(config, replace(spec, resize="aspect", resize_to=None))


def tiny_run(recipe: Recipe = RECIPE) -> Run:
    """A fresh run in this process, on the CPU, in float32."""
    return start_run(tiny_model(seed=recipe.seed), recipe, Accelerator(cpu=True, mixed_precision="no"))


def tiny_checkpoint(path: Path, classes: int = 5) -> Path:
    """A checkpoint of our own, to fine-tune."""
    labels = tuple(f"old {index}" for index in range(classes))
    native.save(path, tiny_model(classes, seed=7), Description(labels, "old", licence="MIT"))
    return path


def write_colours(folder: Path, images: int, shift: int = 0) -> Path:
    """Class folders: pictures of one colour each, in several sizes."""
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(images):
            shade = tuple(min(255, part + 3 * (index + shift) % 40) for part in colour)
            Image.new("RGB", (30 + index, 40), shade).save(folder / name / f"{index}.png")
    return folder
