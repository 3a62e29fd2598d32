"""Everything that changes while training, and the file that a killed run continues from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from model.training.optimizers import averaged, make_optimizer
from model.training.recipe import Recipe
from model.training.starting import freeze_all_but_head
from model.training.stochastic_depth import drop_paths
from model.training.teacher import Teacher
from model.vit import VisionTransformer


@dataclass(slots=True)
class Progress:
    """How far a run is, and how well it went."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the next epoch
    loss: float = 0.0  # sum over those steps
    seconds: float = 0.0  # spent training, over all resumes
    best: float = -1.0  # validation top-1, 0..1
    best_epoch: int = 0

    def is_over(self, recipe: Recipe) -> bool:
        """Whether the last epoch is done, or no epoch was better for too long."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= recipe.epochs or (0 < recipe.patience <= waited and self.best_epoch > 0)


@dataclass(slots=True)
class Run:
    """One run: `model` and what accelerate wraps around it.

    Attributes:
        model: its own weights.
        average: their running average, if the recipe has one.
        wrapped: computes as `model` does, in the recipe's precision and over all processes.
        optimizer: wrapped too.
        accelerator: the processes, the device and the precision.
        recipe: the numbers.
        progress: how far it is.
        teacher: whose answers are learned too, if there is one.
    """

    model: VisionTransformer
    average: AveragedModel | None
    wrapped: nn.Module
    optimizer: Any
    accelerator: Accelerator
    recipe: Recipe
    progress: Progress
    teacher: Teacher | None = None

    @property
    def kept(self) -> VisionTransformer:
        """The model to evaluate and keep: the averaged one if there is one."""
        kept = self.model if self.average is None else self.average.module
        if not isinstance(kept, VisionTransformer):
            raise TypeError("the average is of another model")
        return kept

    def save(self, path: Path) -> None:
        """Write the state in one step; a kill leaves the old state or the new one. Only the first process writes."""
        scaler = self.accelerator.scaler
        state = {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "progress": {name: getattr(self.progress, name) for name in Progress.__slots__},
            "recipe": repr(self.recipe),
        }
        if self.accelerator.is_main_process:
            partial = path.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from `save`.

        Raises:
            ValueError: when the saved run has another recipe.
        """
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["recipe"] != repr(self.recipe):
            raise ValueError(f"{path} belongs to a run with {state['recipe']}; choose another --output or delete it")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])


def start_run(
    model: VisionTransformer,
    recipe: Recipe,
    accelerator: Accelerator,
    *,
    compiled: bool = False,
    teacher: Teacher | None = None,
) -> Run:
    """A fresh run of `model`, which is changed in place.

    Args:
        model: random or loaded weights.
        recipe: the numbers.
        accelerator: with the recipe's precision.
        compiled: compute with `torch.compile`.
        teacher: that of the recipe.

    Raises:
        ValueError: when the batch cannot be shared by the processes.
    """
    parts = recipe.accumulate * accelerator.num_processes
    if recipe.batch % parts:
        raise ValueError(f"--batch {recipe.batch} cannot be shared by {accelerator.num_processes} processes")
    drop_paths(model.blocks, recipe.drop_path)
    if recipe.freeze:
        freeze_all_but_head(model)
    model.to(accelerator.device)
    if teacher is not None:
        teacher.model.to(accelerator.device)
    average = averaged(model, recipe.ema_decay)
    wrapped, optimizer = accelerator.prepare(model, make_optimizer(model, recipe))
    if compiled:
        wrapped = torch.compile(wrapped, dynamic=True)
    return Run(model, average, wrapped, optimizer, accelerator, recipe, Progress(), teacher)
