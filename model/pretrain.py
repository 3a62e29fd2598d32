"""Self-supervision by masked patch prediction (appendix B.1.2): learn from images without labels, then fine-tune.

    python -m model.pretrain photos/ --variant Ti/16 --output runs/pretrained

All images below a folder, or the training images of Fashion-MNIST. Half of the embedded patches are corrupted, and from
what the encoder makes of them one of three targets is predicted. A killed run continues where it was: the same command
again. `OUTPUT/model.safetensors` is the encoder, a checkpoint without a head; `OUTPUT/log.jsonl` has the loss of each
epoch. The paper found all three targets to work, the mean colour best by few-shot accuracy and L2 slightly worst.

Axes: `B` images, `N` patches, `D` width.
"""

import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from model.attention import matmul_attention
from model.augment import Augmentation, augment, draw_grid, for_small_grey
from model.checkpoints import native
from model.checkpoints.native import Description
from model.corruption import corrupt, draw_corruption, draw_others
from model.data import DataError, load_fashion_mnist
from model.loop import Loop, run_to_the_end
from model.manifest import Preprocessing
from model.pretexts import Target, make_pretext
from model.sources.source import model_name
from model.training.recipe import Recipe, default_batch
from model.unlabelled import load_images
from model.variants import decode_variant
from model.vit import VisionTransformer


class MaskedPrediction(nn.Module):
    """An encoder with what it needs to predict corrupted patches: the embedding of a mask, and a linear layer."""

    def __init__(self, encoder: VisionTransformer, target: Target) -> None:
        super().__init__()
        self.encoder = encoder
        self.pretext = make_pretext(target, encoder.preprocessing)
        self.mask = nn.Parameter(torch.empty(encoder.config.width))
        self.head = nn.Linear(encoder.config.width, self.pretext.outputs)
        nn.init.normal_(self.mask, std=0.02)

    def forward(self, patches: Tensor, grid: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of a batch, over its corrupted patches alone.

        Args:
            patches: uint8 `[B, N, P*P*C]`.
            grid: int64 `[B, 2]`.
            generator: of the corruption.
        """
        lengths, count = grid.prod(1), patches.shape[1]
        corruption = draw_corruption(lengths, count, generator)
        embedded = self.encoder.embed(patches, grid)
        corrupted = corrupt(embedded, corruption, self.mask, draw_others(lengths, count, generator))
        tokens = self.encoder.encode(corrupted, grid)[:, self.encoder.config.prefix :]  # [B, N, D]
        chosen = corruption.corrupted
        return self.pretext.loss(self.head(self.encoder.norm(tokens[chosen])), patches[chosen])


def make_loop(model: MaskedPrediction, images: Tensor, augmentation: Augmentation, recipe: Recipe) -> Loop:
    """Pre-training of `model` on images, uint8 `[M, C, S, S]`."""
    spec = model.encoder.preprocessing
    device = next(model.parameters()).device

    def loss(indices: Tensor) -> Tensor:
        shape = draw_grid(spec, augmentation, loop.generator)
        patches = augment(images[indices], shape, spec.patch_size, augmentation, loop.generator).to(device)
        grid = torch.tensor([shape], device=device).expand(len(indices), 2)
        found: Tensor = model(patches, grid, loop.generator)
        return found

    loop = Loop(model, loss, len(images), recipe)
    return loop


def command(
    output: Annotated[Path, typer.Option(help="Folder for checkpoint, state and log.")],
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Folder of images; default Fashion-MNIST's training images.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Architecture, such as Pico/4 or R50+B/16.")] = "Pico/4",
    image_size: Annotated[int | None, typer.Option(help="Native side, pixels; default the variant's own.")] = None,
    max_patches: Annotated[int | None, typer.Option(help="Most patches of an image; default 4 x native.")] = None,
    target: Annotated[Target, typer.Option(help="What is predicted of a corrupted patch.")] = "colour",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = Recipe.epochs,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step; default as in model.train.")] = None,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = Recipe.learning_rate,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="On matrices.")] = Recipe.weight_decay,
    seed: Annotated[int, typer.Option(help="Fixes initial weights, order, augmentation and corruption.")] = Recipe.seed,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cuda" if torch.cuda.is_available() else "cpu",
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first images, to try things out.")] = None,
) -> None:
    """Pre-train a ViT on images without labels."""
    console = Console()
    try:
        config, spec = decode_variant(variant, image_size=image_size, classes=0)
        spec = replace(spec, resize="aspect", resize_to=None, max_patches=max_patches or spec.max_patches)
        images, augmentation = _load(data, spec, console)
        images = images[:limit]
        size = batch or default_batch(len(images), 1)
        recipe = Recipe(epochs, size, learning_rate, weight_decay, seed=seed)
        torch.manual_seed(seed)
        model = MaskedPrediction(VisionTransformer(config, spec), target).to(device)
        if torch.device(device).type == "cpu":
            model.encoder.attend_with(matmul_attention)
        output.mkdir(parents=True, exist_ok=True)
        description = _describe(target, output, is_bundled_data=data is None)

        def save() -> dict[str, float]:
            native.save(output / "model.safetensors", model.encoder, description)
            return {}

        run_to_the_end(make_loop(model, images, augmentation, recipe), output, console, save)
    except (DataError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


def _load(data: Path | None, spec: Preprocessing, console: Console) -> tuple[Tensor, Augmentation]:
    """Images, and the augmentation that suits them."""
    if data is None:
        return load_fashion_mnist("train").images, for_small_grey(Augmentation())
    images, skipped = load_images(data, round(spec.patch_size * math.sqrt(spec.max_patches)))
    for reason in skipped:
        console.print(f"skipped {reason}", markup=False, soft_wrap=True)
    return images, Augmentation()


def _describe(target: Target, output: Path, *, is_bundled_data: bool) -> Description:
    return Description(
        labels=(),
        name=model_name(output.name),
        description=f"Pre-trained by masked patch prediction, target: {target}",
        licence="MIT" if is_bundled_data else "",
        command=shlex.join(["python", "-m", "model.pretrain", *sys.argv[1:]]),
    )


def main() -> None:
    """Entry of `python -m model.pretrain`."""
    typer.run(command)


if __name__ == "__main__":
    main()
