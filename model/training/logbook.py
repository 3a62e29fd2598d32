"""What a run writes beside its checkpoint: a log, a confusion matrix, events for TensorBoard."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from model.plots import draw_confusion

LOG, CONFUSION, EVENTS = "log.jsonl", "confusion.json", "events"


class Logbook:
    """Writes into a folder; one JSON object an epoch, and every step to TensorBoard if that is asked for.

    Args:
        folder: of the run; None writes nothing, in all processes but the first.
        epoch: finished epochs; what the log says of later ones was written by a run that was killed before its state.
        tensorboard: also write events.
    """

    def __init__(self, folder: Path | None, epoch: int, *, tensorboard: bool) -> None:
        self._folder = folder
        self._writer: Any = None
        if folder is None:
            return
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - seconds that only this needs

            self._writer = SummaryWriter(str(folder / EVENTS))
        _forget_later(folder / LOG, epoch)

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def write_step(self, step: int, loss: float, rate: float) -> None:
        """Loss and learning rate of a step, counted over all epochs."""
        if self._writer is not None:
            self._writer.add_scalar("loss", loss, step)
            self._writer.add_scalar("learning_rate", rate, step)

    def write_epoch(self, entry: dict[str, Any]) -> None:
        """One line of the log; the accuracy goes to TensorBoard too."""
        if self._folder is None:
            return
        with (self._folder / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if self._writer is not None and entry["top1"] is not None:
            self._writer.add_scalar("validation_top1", entry["top1"], entry["epoch"])

    def write_confusion(self, matrix: Tensor | None, labels: tuple[str, ...], epoch: int) -> None:
        """The matrix of the best epoch, as JSON and, for up to 50 classes, as a picture."""
        if self._folder is None or matrix is None:
            return
        document = {"epoch": epoch, "labels": labels, "rows_show_columns_said": matrix.tolist()}
        (self._folder / CONFUSION).write_text(json.dumps(document, ensure_ascii=False) + "\n")
        if len(labels) <= 50:
            draw_confusion(matrix.numpy(), labels, self._folder / "confusion.png")


def _forget_later(log: Path, epoch: int) -> None:
    """Drop lines that a killed run wrote after the state from which it continues."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["epoch"] <= epoch]
        log.write_text("".join(f"{line}\n" for line in lines))
