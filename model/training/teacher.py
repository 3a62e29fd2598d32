"""Learn what another model says too, not from labels alone ("Distilling the Knowledge", Hinton et al. 2015).

The teacher sees the patches that the student sees, augmented and mixed, in every step: "Knowledge distillation: A good
teacher is patient and consistent" (Beyer et al. 2022) found that this, and long training, decide.

Axes: `B` images, `N` patches, `P` patch side, `C` channels, `K` classes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.bit import ResNet
from model.checkpoints import baseline
from model.manifest import Preprocessing
from model.sources.load import digest_of, load, locate
from model.sources.source import Bundle, parse_source
from model.vit import VisionTransformer


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """A model that is asked and never changed.

    Attributes:
        model: from patches and grids to logits and embeddings, in evaluation mode.
        digest: SHA-256 of its weights.
    """

    model: nn.Module
    digest: str

    def ask(self, patches: Tensor, grid: Tensor) -> Tensor:
        """Logits `[B, K]` for uint8 `[B, N, P*P*C]` and `[B, 2]`."""
        with torch.inference_mode():
            logits: Tensor = self.model(patches, grid)[0]
        return logits.clone()  # made outside, so that the loss may keep it for the backward pass


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean Kullback-Leibler divergence of the student's answers from the teacher's, both `[B, K]` logits.

    Times the square of the temperature, so that the gradients are as large at any (Hinton et al. 2015, section 2).
    """
    said, expected = ((logits.float() / temperature).log_softmax(-1) for logits in (student, teacher))
    return F.kl_div(said, expected, reduction="batchmean", log_target=True) * temperature**2


def load_teacher(source: str, labels: tuple[str, ...], spec: Preprocessing) -> Teacher:
    """Read a teacher for a student of these labels and these patches.

    Args:
        source: a checkpoint of any kind that can be served, or the folder of a ResNet of `model.resnet`.
        labels: of the student, one per logit.
        spec: what the student's patches are; normalisation may differ, each model does its own.

    Raises:
        CheckpointError: if it cannot be read.
        ValueError: if it cannot teach this student; the message says why.
    """
    bundle = locate(parse_source(source))
    model, known = _read(bundle)
    if problem := _misfit(known, labels, model.preprocessing, spec):
        raise ValueError(f"--teacher {source} cannot teach this model: {problem}")
    return Teacher(model.requires_grad_(False), digest_of(bundle.weights))


def _read(bundle: Bundle) -> tuple[VisionTransformer | ResNet, tuple[str, ...]]:
    """Model and labels."""
    if baseline.is_baseline(bundle.weights[0]):
        return baseline.load(bundle.weights[0])
    source = load(bundle)
    return source.model, source.description.labels


def _misfit(known: tuple[str, ...], labels: tuple[str, ...], own: Preprocessing, spec: Preprocessing) -> str:
    """What of the teacher does not fit the student; empty if all does."""
    if own.patch_size != spec.patch_size:
        return f"its patches have {own.patch_size} pixels, not {spec.patch_size}"
    if own.max_patches < spec.max_patches:
        return f"it takes {own.max_patches} patches at most; give --max-patches {own.max_patches} or less"
    if len(known) != len(labels):
        return f"it knows {len(known)} classes, and DATA has {len(labels)}"
    different = ((taught, learnt) for taught, learnt in zip(known, labels, strict=True) if taught != learnt)
    return next((f"it says {taught!r} where DATA says {learnt!r}" for taught, learnt in different), "")
