"""Which embedded patches are corrupted, and how (appendix B.1.2).

As for the words of BERT: of the patches that must be predicted most are masked, some are replaced by another patch, and
some are kept, so that the model cannot know from a patch whether it is its own.

Axes: `B` images, `N` patches (padded), `D` width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

CORRUPTED = 0.5  # of the patches of an image
MASKED = 0.8  # of the corrupted ones
REPLACED = 0.1  # of the corrupted ones; the others are kept


@dataclass(frozen=True, slots=True, eq=False)
class Corruption:
    """What is done to each patch: bool `[B, N]`, at most one of them is true; none is on padding."""

    masked: Tensor
    replaced: Tensor
    kept: Tensor

    @property
    def corrupted(self) -> Tensor:
        """The patches that are predicted, bool `[B, N]`."""
        return self.masked | self.replaced | self.kept


def draw_corruption(lengths: Tensor, patches: int, generator: torch.Generator) -> Corruption:
    """Choose half of the patches of each image, and what is done to them; shares are exact but for rounding.

    Args:
        lengths: int64 `[B]`, patches of each image, at least 1.
        patches: N.
        generator: of every random number, on the CPU.
    """
    order = torch.rand(len(lengths), patches, generator=generator).to(lengths.device)
    padding = torch.arange(patches, device=lengths.device) >= lengths[:, None]
    rank = order.masked_fill(padding, 2).argsort(1).argsort(1)  # padding comes last
    corrupted = _rounded(lengths[:, None] * CORRUPTED)
    masked, changed = _rounded(corrupted * MASKED), _rounded(corrupted * (MASKED + REPLACED))
    return Corruption(rank < masked, (rank >= masked) & (rank < changed), (rank >= changed) & (rank < corrupted))


def _rounded(count: Tensor) -> Tensor:
    """Halves upward, so that one patch alone is corrupted; the sum of shares is not exact in binary."""
    return (count + 0.5 + 1e-6).floor().long()


def draw_others(lengths: Tensor, patches: int, generator: torch.Generator) -> Tensor:
    """For each patch another patch of the batch, any with the same chance.

    Args:
        lengths: int64 `[B]`, patches of each image, at least 1.
        patches: N.
        generator: of every random number, on the CPU.

    Returns:
        int64 `[B, N]`, index into the `B*N` patches of the batch; never padding, and never the patch itself, unless it
        is the only one.
    """
    valid = (torch.arange(patches, device=lengths.device) < lengths[:, None]).flatten()
    places = valid.nonzero().squeeze(1)
    steps = torch.randint(1, max(2, len(places)), (len(valid),), generator=generator).to(lengths.device)
    return places[(valid.cumsum(0) - 1 + steps) % len(places)].view(len(lengths), patches)


def corrupt(embedded: Tensor, corruption: Corruption, mask: Tensor, others: Tensor) -> Tensor:
    """Embedded patches `[B, N, D]` with the mask's embedding `[D]` and other patches, by index `[B, N]`, among them."""
    replacements = embedded.flatten(0, 1)[others]
    masked = torch.where(corruption.masked[..., None], mask.to(embedded.dtype), embedded)
    return torch.where(corruption.replaced[..., None], replacements, masked)
