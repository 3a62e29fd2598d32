"""Epochs of gradient steps over images in memory, for what `model.train` does not train.

That is the pre-training of `model.pretrain` and the baseline of `model.resnet`. AdamW with linear warm-up and cosine
decay; weight decay on matrices and kernels alone. All that changes is saved after each epoch, and a killed run
continues as if nothing had happened.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from model.training.processes import bf16_is_fast
from model.training.recipe import Recipe
from model.training.schedule import learning_rate


class Loop:
    """One run.

    Args:
        module: what learns.
        loss: of the images with these indices, int64 `[B]`; draws all its random numbers from `generator`.
        images: how many there are.
        recipe: its numbers, those of `model.train`.
    """

    def __init__(self, module: nn.Module, loss: Callable[[Tensor], Tensor], images: int, recipe: Recipe) -> None:
        self.module = module
        self.recipe = recipe
        self.steps = recipe.steps(images)  # of an epoch
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.epoch, self.seconds = 0, 0.0  # over all resumes
        self.optimizer = torch.optim.AdamW(_groups(module, recipe.weight_decay), betas=(0.9, 0.98))
        self._loss, self._images = loss, images

    def run_epoch(self) -> Iterator[float]:
        """One pass over the images; yields the loss of each step."""
        started = time.monotonic()
        self.module.train()
        order = torch.randperm(self._images, generator=self.generator)
        batch = self.recipe.batch
        for index in range(self.steps):
            rate = learning_rate(self.epoch * self.steps + index, self.recipe.epochs * self.steps, self.recipe)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            yield self._step(order[index * batch : (index + 1) * batch])
        self.epoch += 1
        self.seconds += time.monotonic() - started

    def _step(self, indices: Tensor) -> float:
        device = next(self.module.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device)):
            loss = self._loss(indices)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.max_gradient_norm)
        self.optimizer.step()
        return loss.item()

    def save(self, path: Path) -> None:
        """Write all that changes, in one step; a kill leaves the old state or the new one."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "recipe": repr(self.recipe),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from `save`.

        Raises:
            ValueError: when the saved run has another recipe or another module.
        """
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["recipe"] != repr(self.recipe):
            raise ValueError(f"{path} belongs to a run with {state['recipe']}; choose another --output or delete it")
        try:
            self.module.load_state_dict(state["module"])
        except RuntimeError:
            raise ValueError(f"{path} belongs to another model; choose another --output or delete it") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    layers = [each for each in module.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    decayed = [layer.weight for layer in layers]
    chosen = {id(weight) for weight in decayed}
    others = [weight for weight in module.parameters() if id(weight) not in chosen]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def run_to_the_end(loop: Loop, output: Path, console: Console, after: Callable[[], dict[str, float]]) -> None:
    """Run what is left of the epochs, with `OUTPUT/state.pt` and a line of `OUTPUT/log.jsonl` after each.

    Args:
        loop: fresh; it continues where the state file ends.
        output: a folder that exists.
        console: where progress is shown.
        after: called after each epoch, before the state is saved; what it measured goes into the log.
    """
    state = output / "state.pt"
    if state.exists():
        loop.resume(state)
        console.print(f"continuing after epoch {loop.epoch} of {loop.recipe.epochs}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        while loop.epoch < loop.recipe.epochs:
            task = progress.add_task(f"epoch {loop.epoch + 1}/{loop.recipe.epochs}", total=loop.steps)
            losses = []
            for loss in loop.run_epoch():
                losses.append(loss)
                progress.update(task, advance=1)
            entry = {"epoch": loop.epoch, "loss": round(sum(losses) / len(losses), 4), **after()}
            entry["seconds"] = round(loop.seconds, 1)
            with (output / "log.jsonl").open("a") as file:
                file.write(json.dumps(entry) + "\n")
            loop.save(state)
            progress.console.print(", ".join(f"{name} {value}" for name, value in entry.items()))
