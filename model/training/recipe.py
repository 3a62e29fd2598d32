"""The numbers of one run."""

from dataclasses import dataclass
from typing import Any, Literal

OptimizerName = Literal["adamw", "sgd"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Recipe:
    """Numbers of one run; saved with it, and a resumed run must have the same.

    The defaults train from scratch; `recipe_of` has those of fine-tuning.
    """

    epochs: int = 30  # passes over the training images
    batch: int = 256  # images a step, over all processes
    learning_rate: float = 1e-3  # peak, after warm-up
    weight_decay: float = 0.05  # on matrices only, not on biases, norms, tokens and positions
    warmup_share: float = 0.05  # of all steps
    calm_share: float = 0.2  # of the epochs, the last ones, with little augmentation
    label_smoothing: float = 0.1
    max_gradient_norm: float = 1.0
    seed: int = 0
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.9  # of SGD
    accumulate: int = 1  # parts of a batch that are computed one after the other
    drop_path: float = 0.0  # chance that the last block's branches are skipped; less for those before it
    mixup: float = 0.0  # alpha of the Beta distribution; 0: no mixup
    cutmix: float = 0.0  # the same; with both, each batch has one of them
    ema_decay: float = 0.0  # of the averaged weights that are evaluated and kept; 0: none are averaged
    freeze: bool = False  # train the head alone: a linear probe
    patience: int = 0  # epochs without a better validation top-1 before the run ends; 0: never
    precision: Precision = "float32"  # of matrix products; weights stay float32
    teacher: str = ""  # SHA-256 of the weights whose answers are learned too; empty: labels alone
    teacher_weight: float = 0.9  # of the teacher's answers in the loss; the labels have the rest
    temperature: float = 2.0  # divides the logits of both before they are compared; above 1 unlikely classes count more

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with.

        Raises:
            ValueError: naming the number.
        """
        if self.batch % self.accumulate:
            raise ValueError(f"--batch {self.batch} cannot be split into {self.accumulate} equal parts (--accumulate)")
        for name in ("drop_path", "ema_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be from 0 to below 1, not {getattr(self, name)}")
        if not 0 <= self.teacher_weight <= 1:
            raise ValueError(f"--teacher-weight must be from 0 to 1, not {self.teacher_weight}")
        if self.temperature <= 0:
            raise ValueError(f"--temperature must be above 0, not {self.temperature}")

    def steps(self, images: int) -> int:
        """Steps of one epoch over so many images; what does not fill a batch waits for another epoch's order."""
        return max(1, images // self.batch)


def recipe_of(
    *,
    fine_tuning: bool,
    optimizer: OptimizerName | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    **given: Any,
) -> Recipe:
    """A recipe with the defaults that suit it: AdamW from scratch, the paper's SGD from a checkpoint.

    Args:
        fine_tuning: whether a checkpoint is the start.
        optimizer: None for the default.
        learning_rate: the same.
        weight_decay: the same.
        given: the other numbers.

    Raises:
        ValueError: naming a number that cannot be.
    """
    chosen = optimizer or ("sgd" if fine_tuning else "adamw")
    rate, decay = {"adamw": (1e-3, 0.05), "sgd": (1e-2, 0.0)}[chosen]
    if fine_tuning and chosen == "adamw":
        rate = 1e-4  # 1e-3 would forget what the checkpoint knows
    return Recipe(
        optimizer=chosen,
        learning_rate=rate if learning_rate is None else learning_rate,
        weight_decay=decay if weight_decay is None else weight_decay,
        **given,
    )


def default_batch(images: int, parts: int) -> int:
    """Images a step: 256, or an eighth of a small data set, so that an epoch has steps; a multiple of `parts`."""
    return max(1, min(256, max(8, images // 8)) // parts) * parts
