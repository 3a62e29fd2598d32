"""Train a small ResNet as the paper's baseline, for the comparison of figure 5. It is not served.

    python -m model.resnet --variant R20x0.25 --epochs 30 --output runs/resnet

Data, augmentation, batches of varying resolution and recipe are those of `model.train`. A killed run continues where it
was: the same command again. `OUTPUT/log.jsonl` has loss, accuracy and time of each epoch. From the weights in
`OUTPUT/model.safetensors` a ViT can learn: `patchserve train --teacher OUTPUT`.
"""

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from torch import Tensor

from model.augment import Augmentation, augment, calm, draw_grid, for_small_grey
from model.bit import ResNet, decode_resnet
from model.checkpoints import baseline
from model.data import DataError, LabelledImages, hold_out
from model.data_sets import FORMS, load_data
from model.loop import Loop, run_to_the_end
from model.manifest import Preprocessing
from model.training.recipe import Recipe, default_batch
from model.training.validation import native_top1


def make_loop(model: ResNet, data: LabelledImages, augmentation: Augmentation, recipe: Recipe) -> Loop:
    """Training of `model` by the losses, batches and augmentation of `model.train`."""
    spec = model.preprocessing
    device = next(model.parameters()).device

    def loss(indices: Tensor) -> Tensor:
        is_calm = loop.epoch >= round((1 - recipe.calm_share) * recipe.epochs)
        chosen = calm(augmentation) if is_calm else augmentation
        shape = draw_grid(spec, chosen, loop.generator)
        patches = augment(data.images[indices], shape, spec.patch_size, chosen, loop.generator).to(device)
        logits, _ = model(patches, torch.tensor([shape], device=device).expand(len(indices), 2))
        targets = data.targets[indices].to(device)
        return F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)

    loop = Loop(model, loss, len(data), recipe)
    return loop


def command(
    output: Annotated[Path, typer.Option(help="Folder for state and log.")],
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help=f"{FORMS[0].upper()}{FORMS[1:]}; default Fashion-MNIST.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Images to measure on; default a tenth of DATA, or Fashion-MNIST's.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Depth and width, such as R20x0.25 or R50x1.")] = "R20x0.25",
    image_size: Annotated[int, typer.Option(min=8, help="Native side, pixels; a multiple of 4.")] = 28,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = Recipe.epochs,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step; default as in model.train.")] = None,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = Recipe.learning_rate,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="On kernels and the head.")] = Recipe.weight_decay,
    seed: Annotated[int, typer.Option(help="Fixes initial weights, order and augmentation.")] = Recipe.seed,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cuda" if torch.cuda.is_available() else "cpu",
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first training images.")] = None,
) -> None:
    """Train a ResNet from scratch, to compare it with a ViT."""
    console = Console()
    try:
        layers, factor = decode_resnet(variant)
        spec = _preprocessing(image_size)
        train_set, test_set = _load(data, test, 2 * image_size, seed)
        train_set = train_set.subset(slice(limit))
        size = batch or default_batch(len(train_set), 1)
        recipe = Recipe(epochs, size, learning_rate, weight_decay, seed=seed)
        augmentation = for_small_grey(Augmentation()) if data is None else Augmentation()
        torch.manual_seed(seed)
        model = ResNet(layers, factor, len(train_set.labels), spec).to(device)
        output.mkdir(parents=True, exist_ok=True)
        loop = make_loop(model, train_set, augmentation, recipe)

        def measure() -> dict[str, float]:
            baseline.save(output / "model.safetensors", model, variant, train_set.labels)
            return {"top1": native_top1(model, test_set)}  # type: ignore[arg-type]

        run_to_the_end(loop, output, console, measure)
    except (DataError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


def _preprocessing(side: int) -> Preprocessing:
    """Patches of 4 pixels, as small as batches of varying resolution can use; the network sees none of them."""
    if side % 4:
        raise ValueError(f"--image-size {side} is not a multiple of 4 pixels")
    grid = (side // 4, side // 4)
    return Preprocessing(patch_size=4, native_grid=grid, max_patches=4 * grid[0] * grid[1], resize="aspect")


def _load(data: Path | None, test: Path | None, side: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Images to learn from, and images to measure on."""
    train_set = load_data(data, "train", side)
    if test is None and data is not None:
        return hold_out(train_set, 0.1, seed)
    return train_set, load_data(test, "test", side, train_set.labels)


def main() -> None:
    """Entry of `python -m model.resnet`."""
    typer.run(command)


if __name__ == "__main__":
    main()
