"""Train a ViT from scratch, or fine-tune any checkpoint, on images of varying resolution.

    python -m model.train --variant Pico/4 --epochs 30 --output runs/fashion
    python -m model.train photos/ --from hf:ORG/NAME --output runs/photos
    torchrun --nproc-per-node 2 -m model.train photos/ --from timm:NAME --output runs/photos

Fashion-MNIST from Debian's package `dataset-fashion-mnist` by default, else what `model.data_sets` reads. A killed run
continues where it was: the same command again. Beside the checkpoint `OUTPUT/model.safetensors`, that of the epoch that
was best on the validation images, stand `log.jsonl`, one JSON object an epoch, and `confusion.json`.

From scratch the recipe is AdamW with decoupled weight decay, linear warm-up and cosine decay (paper, appendix B.1);
from a checkpoint SGD with momentum and without decay, and a head of zeros (section 3.2 and appendix B.1.1).
"""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from model.augment import Augmentation
from model.checkpoints.loading import CheckpointError
from model.data import DataError
from model.data_sets import FORMS
from model.sources.source import FORMS as SOURCES
from model.sources.source import model_name
from model.training.loop import Outputs, train
from model.training.materials import Request, prepare
from model.training.processes import Choice, open_accelerator, precision_of
from model.training.recipe import OptimizerName, Recipe, default_batch, recipe_of
from model.training.run import start_run
from model.training.teacher import load_teacher


def command(
    output: Annotated[Path, typer.Option(help="Folder for checkpoint, state and log.")],
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help=f"{FORMS[0].upper()}{FORMS[1:]}; default Fashion-MNIST.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Images that choose the best epoch; default: --hold-out.")
    ] = None,
    hold_out: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Without --validation: share of DATA that is kept for it.")
    ] = 0.1,
    source: Annotated[str | None, typer.Option("--from", metavar="SOURCE", help=f"Fine-tune {SOURCES}.")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="With --from: new native side, pixels; positions are resampled.")
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="With --from: train the head alone.")] = False,
    variant: Annotated[
        str, typer.Option(help="From scratch: architecture and patch size, such as Pico/4 or B/16.")
    ] = "Pico/4",
    image_size: Annotated[
        int | None, typer.Option(help="From scratch: native side, pixels; default the variant's own.")
    ] = None,
    pooling: Annotated[
        Literal["token", "average"],
        typer.Option(help="From scratch: the head reads a class token, or the mean of patches."),
    ] = "token",
    mimetic: Annotated[
        bool, typer.Option("--mimetic", help="From scratch: begin with attention as trained models have it.")
    ] = False,
    max_patches: Annotated[
        int | None, typer.Option(min=1, help="Most patches of an image; default 4 x native.")
    ] = None,
    min_patches: Annotated[int, typer.Option(min=1, help="Fewest patches of a drawn size.")] = 16,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = Recipe.epochs,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a step; default 256, or all if they are fewer.")
    ] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Compute a batch in so many parts, for less memory.")] = 1,
    optimizer: Annotated[OptimizerName | None, typer.Option(help="Default adamw, with --from sgd.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Peak; default 1e-3 for adamw, 1e-2 for sgd.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0.0, help="On matrices; default 0.05 for adamw, 0 for sgd.")
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the targets that goes to all classes.")
    ] = Recipe.label_smoothing,
    max_gradient_norm: Annotated[
        float, typer.Option(min=0.0, help="Longer gradients are clipped.")
    ] = Recipe.max_gradient_norm,
    drop_path: Annotated[float, typer.Option(help="Stochastic depth: chance that the last block is skipped.")] = 0.0,
    mixup: Annotated[float, typer.Option(min=0.0, help="Alpha of mixup; 0: none.")] = 0.0,
    cutmix: Annotated[float, typer.Option(min=0.0, help="Alpha of CutMix; 0: none.")] = 0.0,
    rand_augment: Annotated[int, typer.Option(min=0, max=30, help="Strength of RandAugment; 0: none.")] = 0,
    erase: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of images with random erasing.")] = 0.0,
    native_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of batches at the native size.")] = 0.5,
    ema_decay: Annotated[float, typer.Option(help="Keep an average of the weights, such as 0.999; 0: none.")] = 0.0,
    teacher: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Learn this checkpoint's answers too; same patches and labels.")
    ] = None,
    teacher_weight: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the teacher's answers in the loss; the labels have the rest.")
    ] = Recipe.teacher_weight,
    temperature: Annotated[
        float, typer.Option(help="Divides both models' logits before they are compared.")
    ] = Recipe.temperature,
    patience: Annotated[int, typer.Option(min=0, help="Stop after so many epochs without a better one; 0: never.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Fixes initial weights, order and augmentation.")] = Recipe.seed,
    device: Annotated[
        Literal["auto", "cpu"], typer.Option(help="auto: a GPU for each process if there are any.")
    ] = "auto",
    precision: Annotated[Choice, typer.Option(help="auto: bfloat16 where it is native.")] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile; needs a C++ compiler.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write OUTPUT/events.")] = False,
    save_steps: Annotated[int, typer.Option(min=0, help="Also save the state after so many steps.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only so many images, drawn by the seed.")] = None,
) -> None:
    """Train a ViT from scratch, or fine-tune a checkpoint."""
    console = Console()
    try:
        if source is None:
            _refuse("needs --from: there is nothing to keep of random weights", resolution=resolution, freeze=freeze)
        else:
            _refuse("is for random weights, not for --from", mimetic=mimetic, pooling=pooling != "token")
        accelerator = open_accelerator(precision, cpu=device == "cpu")
        console.quiet = not accelerator.is_main_process
        augmentation = Augmentation(native_share, min_patches, rand_augment=rand_augment, erase=erase)
        begin = (variant, image_size, pooling, mimetic)
        request = Request(data, validation, hold_out, source, resolution, *begin, max_patches, limit, seed)
        materials = prepare(request, augmentation, console)
        taught_by = None
        if teacher is not None:
            taught_by = load_teacher(teacher, materials.data.labels, materials.model.preprocessing)
        recipe = recipe_of(
            fine_tuning=source is not None,
            epochs=epochs,
            batch=batch or default_batch(len(materials.data), accumulate * accelerator.num_processes),
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            max_gradient_norm=max_gradient_norm,
            seed=seed,
            accumulate=accumulate,
            drop_path=drop_path,
            mixup=mixup,
            cutmix=cutmix,
            ema_decay=ema_decay,
            freeze=freeze,
            patience=patience,
            precision=precision_of(accelerator),
            teacher=taught_by.digest if taught_by else "",
            teacher_weight=teacher_weight,
            temperature=temperature,
        )
        run = start_run(materials.model, recipe, accelerator, compiled=compiled, teacher=taught_by)
        command_line = shlex.join(["python", "-m", "model.train", *sys.argv[1:]])
        description = replace(materials.description, name=model_name(output.name), command=command_line)
        outputs = Outputs(output, description, tensorboard, save_steps)
        train(run, materials.data, materials.validation, materials.augmentation, outputs, console)
        accelerator.end_training()
    except (CheckpointError, DataError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


def _refuse(why: str, **given: object) -> None:
    for name in (name for name, is_given in given.items() if is_given):
        raise ValueError(f"--{name} {why}")


def main() -> None:
    """Entry of `python -m model.train`."""
    typer.run(command)


if __name__ == "__main__":
    main()
