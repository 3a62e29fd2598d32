"""What one training of the reproduction is, and what came of it; both as JSON lines, so that a killed run goes on."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.pretexts import Target


@dataclass(frozen=True, slots=True)
class Trial:
    """One training.

    Attributes:
        model: a variant of `model.vit` or `model.resnet`.
        images: training images, drawn by the seed; fewer are a part of more.
        seen: images in all steps together, over all epochs; 0 trains nothing.
        seed: of weights, order, augmentation, and of which images.
        side: native side, pixels.
        target: of masked patch prediction, without labels; None learns from labels.
        start: the trial whose weights are taken; None for random ones.
        rate: peak learning rate.
    """

    model: str
    images: int = 60_000
    seen: int = 120_000
    seed: int = 0
    side: int = 28
    target: Target | None = None
    start: "Trial | None" = None
    rate: float = 1e-3

    @property
    def name(self) -> str:
        """Of its folder; another trial has another one."""
        own = f"{self.model}-{self.images}-{self.seen}-{self.side}-{self.target or 'labels'}-{self.rate:g}-{self.seed}"
        own = own.replace("/", "_").replace(":", "_")
        return own if self.start is None else f"{own}-after-{self.start.name}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a trial.

    Attributes:
        trial: which.
        top1: on the 10,000 test images at the native size, 0..1; None without labels.
        teraflops: of its own steps, 10^12 operations: thrice the forward pass for each image that was seen.
        cpu_seconds: of its own steps, one thread; a frozen or a waiting process spends none.
    """

    trial: Trial
    top1: float | None
    teraflops: float
    cpu_seconds: float


def append(path: Path, result: Result) -> None:
    """One more line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> dict[Trial, Result]:
    """All lines; empty if there is no file."""
    return {result.trial: result for result in _lines(path)}


def _lines(path: Path) -> Iterator[Result]:
    for line in path.read_text().splitlines() if path.is_file() else ():
        document = json.loads(line)
        yield Result(**document | {"trial": _trial(document["trial"])})


def _trial(document: dict[str, Any]) -> Trial:
    start = document["start"]
    return Trial(**document | {"start": None if start is None else _trial(start)})
