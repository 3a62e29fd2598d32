"""Everything that the figures show, found in a model with the help of some images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.data import DataError
from model.headers import ImageError, ImageLimits
from model.hybrid import join_patches
from model.inspection.distance import attention_distances
from model.inspection.filters import first_filters, principal_components
from model.inspection.similarity import position_similarity
from model.preprocess import PatchSequence, preprocess
from model.rollout import attention_shares, has_rollout
from model.vit import VisionTransformer


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """An image as the model reads it, uint8 `[h, w, 3]`, and the share of each patch, `[rows, columns]`."""

    name: str
    image: NDArray[np.uint8]
    shares: NDArray[np.float32]


@dataclass(slots=True)
class Findings:
    """All that is drawn and written.

    Attributes:
        arrays: by name, as in `figures.npz`.
        attended: the images that are shown.
        images: how many gave distances.
        notes: what was left out, and why; sentences.
    """

    arrays: dict[str, NDArray[np.floating[Any]]] = field(default_factory=dict)
    attended: list[Attended] = field(default_factory=list)
    images: int = 0
    notes: list[str] = field(default_factory=list)


def find(model: VisionTransformer, files: Iterable[Path], shown: int) -> Findings:
    """Everything that the figures show.

    Args:
        model: any, on the CPU.
        files: images; one that cannot be read is noted.
        shown: how many of them get a rollout.

    Raises:
        DataError: when no image can be read.
    """
    findings = Findings()
    components, shares = principal_components(first_filters(model))
    findings.arrays |= {"filters": components.numpy(), "filters_variance": shares.numpy()}
    similarity = position_similarity(model)
    if similarity is None:
        findings.notes.append(f"no figure of positions: those of this model are {model.config.positions!r}")
    else:
        findings.arrays["positions"] = similarity.numpy()
    if not has_rollout(model.config):
        findings.notes.append("no rollout: the weights of differential attention are no shares")
        shown = 0
    total = np.zeros(())
    for path, sequence in _read(files, model, findings):
        patches, grid = torch.from_numpy(sequence.patches)[None], torch.tensor([sequence.grid])
        total = total + attention_distances(model, patches, grid).numpy()
        findings.images += 1
        if len(findings.attended) < shown:
            findings.attended.append(_attend(model, path.name, patches, grid))
    if not findings.images:
        raise DataError(f"no readable image: {'; '.join(findings.notes[:3])}")
    findings.arrays["distance"] = total / findings.images
    return findings


def _read(files: Iterable[Path], model: VisionTransformer, findings: Findings) -> Iterator[tuple[Path, PatchSequence]]:
    for path in files:
        try:
            yield path, preprocess(path.read_bytes(), model.preprocessing, ImageLimits())
        except (ImageError, OSError) as error:
            findings.notes.append(f"skipped {path}: {error}")


@torch.no_grad()
def _attend(model: VisionTransformer, name: str, patches: torch.Tensor, grid: torch.Tensor) -> Attended:
    rows, columns = grid[0].tolist()
    image = join_patches(patches, rows, columns, model.preprocessing.patch_size)[0].permute(1, 2, 0).numpy()
    return Attended(name, image, attention_shares(model, patches, grid)[0].view(rows, columns).numpy())
