"""From the first epoch to the last: train, validate, keep the best, write down, be ready for a kill."""

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.augment import Augmentation
from model.checkpoints import native
from model.checkpoints.native import Description
from model.data import LabelledImages
from model.training.logbook import Logbook
from model.training.run import Run
from model.training.steps import train_epoch
from model.training.validation import confusion, top1_of

STATE, CHECKPOINT = "state.pt", "model.safetensors"


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a run leaves, and how often.

    Attributes:
        folder: of checkpoint, state and log.
        description: goes into the checkpoint.
        tensorboard: write events too.
        save_steps: also save the state after so many steps; 0: after each epoch only.
    """

    folder: Path
    description: Description
    tensorboard: bool = False
    save_steps: int = 0


def train(
    run: Run,
    data: LabelledImages,
    validation: LabelledImages,
    augmentation: Augmentation,
    outputs: Outputs,
    console: Console,
) -> None:
    """Train to the end, or continue a run that was killed.

    Args:
        run: fresh; a state file in the folder overrides it.
        data: to learn from.
        validation: the checkpoint of the epoch that is best on these is kept; without any, that of the last epoch.
        augmentation: how images are varied.
        outputs: where to write.
        console: of the first process; quiet in the others.

    Raises:
        ValueError: when the saved run has another recipe.
    """
    outputs.folder.mkdir(parents=True, exist_ok=True)
    state = outputs.folder / STATE
    if state.exists():
        run.resume(state)
        console.print(f"continuing after epoch {run.progress.epoch} of {run.recipe.epochs}, step {run.progress.step}")
    first = run.accelerator.is_main_process
    with Logbook(outputs.folder if first else None, run.progress.epoch, tensorboard=outputs.tensorboard) as logbook:
        while not run.progress.is_over(run.recipe):
            _train_epoch(run, data, augmentation, outputs, logbook, console)
            _finish_epoch(run, data, validation, outputs, logbook, console)
            run.save(state)
    run.accelerator.wait_for_everyone()


def _train_epoch(
    run: Run, data: LabelledImages, augmentation: Augmentation, outputs: Outputs, logbook: Logbook, console: Console
) -> None:
    """The steps that are left of an epoch, with a bar."""
    steps, epoch = run.recipe.steps(len(data)), run.progress.epoch
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"epoch {epoch + 1}/{run.recipe.epochs}", total=steps, completed=run.progress.step)
        before = time.monotonic()
        for loss in train_epoch(run, data, augmentation):
            before, run.progress.seconds = time.monotonic(), run.progress.seconds + time.monotonic() - before
            bar.advance(task)
            logbook.write_step(epoch * steps + run.progress.step, loss, run.optimizer.param_groups[0]["lr"])
            if outputs.save_steps and run.progress.step % outputs.save_steps == 0:
                run.save(outputs.folder / STATE)


def _finish_epoch(
    run: Run, data: LabelledImages, validation: LabelledImages, outputs: Outputs, logbook: Logbook, console: Console
) -> None:
    """Validate, keep the model if it is the best one, write the line of the log."""
    progress = run.progress
    matrix = confusion(run.kept, validation, run.accelerator) if len(validation) else None
    top1 = None if matrix is None else top1_of(matrix)
    loss, progress.loss = progress.loss / run.recipe.steps(len(data)), 0.0
    if top1 is None or top1 > progress.best:
        progress.best, progress.best_epoch = top1 or 0.0, progress.epoch
        logbook.write_confusion(matrix, validation.labels, progress.epoch)
        if run.accelerator.is_main_process:
            native.save(outputs.folder / CHECKPOINT, run.kept, outputs.description)
    seconds = round(progress.seconds, 1)
    logbook.write_epoch({"epoch": progress.epoch, "loss": loss, "top1": top1, "seconds": seconds})
    shown = "" if top1 is None else f", validation top-1 {top1:.4f} (best {progress.best:.4f})"
    console.print(f"epoch {progress.epoch}: loss {loss:.4f}{shown}")
