"""Train a ViT from scratch, on images of varying resolution.

    python -m model.train --variant Pico/4 --epochs 30 --output runs/fashion

Fashion-MNIST from Debian's package `dataset-fashion-mnist` by default, `--data` for a folder of class folders. A killed
run continues where it was: the same command again. Beside the checkpoint `OUTPUT/model.safetensors` stands
`OUTPUT/log.jsonl`, one JSON object an epoch. `model/bundled/MODEL_CARD.md` records a real run with its time and result.

The recipe is AdamW with decoupled weight decay, linear warm-up and cosine decay (paper, appendix B.1), label smoothing
and clipped gradients.
"""

import json
import math
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from model.attention import matmul_attention
from model.augment import Augmentation, augment, calm, draw_grid
from model.checkpoints import native
from model.checkpoints.native import Description
from model.data import DataError, LabelledImages, load_class_folders, load_fashion_mnist
from model.manifest import Preprocessing
from model.vit import VisionTransformer, decode_variant


@dataclass(frozen=True)
class Recipe:
    """Numbers of one run; saved with it, and a resumed run must have the same."""

    epochs: int = 30  # passes over the training images
    batch: int = 256  # images a step
    learning_rate: float = 1e-3  # peak, after warm-up
    weight_decay: float = 0.05  # on matrices only, not on biases, norms, tokens and positions
    warmup_share: float = 0.05  # of all steps
    calm_share: float = 0.2  # of the epochs, the last ones, with little augmentation
    label_smoothing: float = 0.1
    max_gradient_norm: float = 1.0
    seed: int = 0

    def steps(self, images: int) -> int:
        """Steps of one epoch over so many images; what does not fill a batch waits for another epoch's order."""
        return max(1, images // self.batch)


@dataclass(slots=True)
class Run:
    """Everything that changes while training; what a resumed run reads back."""

    model: VisionTransformer
    optimizer: torch.optim.AdamW
    generator: torch.Generator
    epoch: int = 0
    seconds: float = 0.0  # spent training, over all resumes

    def save(self, path: Path, recipe: Recipe) -> None:
        """Write the state in one step; a kill leaves the old state or the new one."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "recipe": repr(recipe),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path, recipe: Recipe) -> None:
        """Continue from `save`.

        Raises:
            ValueError: when the saved run has another recipe.
        """
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["recipe"] != repr(recipe):
            raise ValueError(f"{path} belongs to a run with {state['recipe']}; choose another --output or delete it")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]


def start_run(model: VisionTransformer, recipe: Recipe) -> Run:
    """A fresh run: the optimizer with weight decay on matrices alone, and the seeded generator."""
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "positions" not in name]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    return Run(model, optimizer, torch.Generator().manual_seed(recipe.seed))


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then cosine to 1 % of the peak."""
    warmup = max(1, round(recipe.warmup_share * steps))
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return recipe.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def train_epoch(run: Run, data: LabelledImages, recipe: Recipe, augmentation: Augmentation) -> Iterator[float]:
    """Train one epoch; yields the loss of each step."""
    steps = recipe.steps(len(data))
    if run.epoch >= round((1 - recipe.calm_share) * recipe.epochs):
        augmentation = calm(augmentation)
    order = torch.randperm(len(data), generator=run.generator)
    run.model.train()
    for index in range(steps):
        rate = learning_rate(run.epoch * steps + index, recipe.epochs * steps, recipe)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        chosen = order[index * recipe.batch : (index + 1) * recipe.batch]
        yield _step(run, data.images[chosen], data.targets[chosen], recipe, augmentation)
    run.epoch += 1


def _step(run: Run, images: Tensor, targets: Tensor, recipe: Recipe, augmentation: Augmentation) -> float:
    spec = run.model.preprocessing
    device = next(run.model.parameters()).device
    shape = draw_grid(spec, augmentation, run.generator)
    patches = augment(images, shape, spec.patch_size, augmentation, run.generator).to(device)
    grid = torch.tensor([shape], device=device).expand(len(images), 2)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device)):
        logits, _ = run.model(patches, grid)
        loss = F.cross_entropy(logits.float(), targets.to(device), label_smoothing=recipe.label_smoothing)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.max_gradient_norm)
    run.optimizer.step()
    return loss.item()


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are native: 4.7 x float32 on a CPU with AVX512-BF16, emulated without."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


@torch.no_grad()
def native_top1(model: VisionTransformer, data: LabelledImages, batch: int = 500) -> float:
    """Top-1 at the native grid, 0..1: a quick check while training. `model.evaluate` measures the served path."""
    spec = model.preprocessing
    plain = Augmentation(native_share=1.0, zoom=(1.0, 1.0), stretch=1.0, shift=0.0, flip=False)
    device = next(model.parameters()).device
    model.eval()
    correct = 0
    for images, targets in zip(torch.split(data.images, batch), torch.split(data.targets, batch), strict=True):
        patches = augment(images, spec.native_grid, spec.patch_size, plain, torch.Generator())
        grid = torch.tensor([spec.native_grid]).expand(len(images), 2)
        logits, _ = model(patches.to(device), grid.to(device))
        correct += int((logits.argmax(-1).cpu() == targets).sum())
    return correct / len(data)


def train(
    run: Run,
    data: LabelledImages,
    test: LabelledImages,
    recipe: Recipe,
    augmentation: Augmentation,
    description: Description,
    output: Path,
    console: Console,
) -> None:
    """Train to the end, with a state file, a checkpoint and a log line after every epoch."""
    state, log = output / "state.pt", output / "log.jsonl"
    if state.exists():
        run.resume(state, recipe)
        console.print(f"continuing after epoch {run.epoch} of {recipe.epochs}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        while run.epoch < recipe.epochs:
            started = time.monotonic()
            losses = []
            task = progress.add_task(f"epoch {run.epoch + 1}/{recipe.epochs}", total=recipe.steps(len(data)))
            for loss in train_epoch(run, data, recipe, augmentation):
                losses.append(loss)
                progress.update(task, advance=1)
            run.seconds += time.monotonic() - started
            entry = {
                "epoch": run.epoch,
                "loss": round(sum(losses) / len(losses), 4),
                "top1": native_top1(run.model, test),
                "seconds": round(run.seconds, 1),
            }
            with log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            native.save(output / "model.safetensors", run.model, description)
            run.save(state, recipe)
            progress.console.print(f"epoch {entry['epoch']}: loss {entry['loss']}, test top-1 {entry['top1']:.4f}")


def command(
    output: Annotated[Path, typer.Option(help="Folder for checkpoint, state and log.")],
    data: Annotated[Path | None, typer.Option(help="Folder of class folders; default Fashion-MNIST.")] = None,
    test: Annotated[
        Path | None, typer.Option(help="The same for the test images; default the training images.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Architecture and patch size, such as Pico/4 or B/16.")] = "Pico/4",
    image_size: Annotated[int | None, typer.Option(help="Native side, pixels; default the variant's own.")] = None,
    max_patches: Annotated[int | None, typer.Option(help="Most patches of an image; default 4 x native.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = Recipe.epochs,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = Recipe.batch,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = Recipe.learning_rate,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="On matrices.")] = Recipe.weight_decay,
    seed: Annotated[int, typer.Option(help="Fixes initial weights, order and augmentation.")] = Recipe.seed,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cuda" if torch.cuda.is_available() else "cpu",
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first images, to try things out.")] = None,
) -> None:
    """Train a ViT from scratch."""
    console = Console()
    recipe = Recipe(epochs, batch, learning_rate, weight_decay, seed=seed)
    try:
        config, spec = decode_variant(variant, image_size=image_size)
        spec = replace(spec, resize="aspect", resize_to=None, max_patches=max_patches or spec.max_patches)
        train_set, test_set, augmentation = _load(data, test, spec)
        for reason in train_set.skipped + test_set.skipped:
            console.print(f"skipped {reason}")
        if limit is not None:
            train_set, test_set = (_first(each, limit) for each in (train_set, test_set))
        torch.manual_seed(seed)
        config = replace(config, classes=len(train_set.labels))
        model = VisionTransformer(config, spec).to(device)
        if torch.device(device).type == "cpu":
            model.attend_with(matmul_attention)
        run = start_run(model, recipe)
        description = Description(
            labels=train_set.labels,
            name="fashion-mnist" if data is None else output.name.lower(),
            licence="MIT" if data is None else "",
            command=shlex.join(["python", "-m", "model.train", *sys.argv[1:]]),
        )
        output.mkdir(parents=True, exist_ok=True)
        train(run, train_set, test_set, recipe, augmentation, description, output, console)
    except (DataError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


def _load(
    data: Path | None, test: Path | None, spec: Preprocessing
) -> tuple[LabelledImages, LabelledImages, Augmentation]:
    """The two data sets, and the augmentation that suits them."""
    if data is None:
        grey = Augmentation(zoom=(0.85, 1.1), stretch=1.15, shift=0.07, recolour=0.5)
        return load_fashion_mnist("train"), load_fashion_mnist("test"), grey
    side = round(spec.patch_size * math.sqrt(spec.max_patches))
    train_set = load_class_folders(data, side)
    test_set = load_class_folders(test, side, train_set.labels) if test else train_set
    return train_set, test_set, Augmentation()


def _first(data: LabelledImages, count: int) -> LabelledImages:
    return LabelledImages(data.images[:count], data.targets[:count], data.labels, data.skipped)


def main() -> None:
    """Entry of `python -m model.train`."""
    typer.run(command)


if __name__ == "__main__":
    main()
