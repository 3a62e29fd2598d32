"""What is predicted of a corrupted patch: the three targets of the paper (appendix B.1.2).

Colours have 3 bits a channel, 512 in RGB, and each is a class. Where the paper has 4x4 of a patch of 16 pixels, a patch
of any size is averaged to 4x4 squares, which overlap if 4 does not divide its side.

Axes: `M` corrupted patches, `P` patch side, `C` channels, `S` squares along a side.
"""

from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from model.manifest import Preprocessing

Target = Literal["colour", "downsized", "pixels"]
TARGETS: tuple[Target, ...] = get_args(Target)
_LEVELS = 8  # of 3 bits


class Pretext(Protocol):
    """One kind of target."""

    outputs: int  # values that are predicted of a patch

    def loss(self, predicted: Tensor, patches: Tensor) -> Tensor:
        """Mean over the patches, from `[M, outputs]` and the patches themselves, uint8 `[M, P*P*C]`."""


class ColourPretext:
    """The mean colour of each of `S * S` squares of the patch, all at once; the mean of the patch for S = 1."""

    def __init__(self, spec: Preprocessing, squares: int) -> None:
        self._patch_size = spec.patch_size
        self._squares = min(squares, spec.patch_size)
        self._colours = _LEVELS**spec.channels
        self.outputs = self._squares**2 * self._colours

    def loss(self, predicted: Tensor, patches: Tensor) -> Tensor:
        """Cross-entropy, the mean over patches and squares."""
        classes = colours(patches, self._patch_size, self._squares)
        return F.cross_entropy(predicted.float().view(-1, self._colours), classes.flatten())


class PixelPretext:
    """All pixels of the patch, normalised as the model reads them."""

    def __init__(self, spec: Preprocessing) -> None:
        self.outputs = spec.patch_dim
        repeat = spec.patch_dim // spec.channels
        self._mean, self._std = torch.tensor(spec.mean * repeat), torch.tensor(spec.std * repeat)

    def loss(self, predicted: Tensor, patches: Tensor) -> Tensor:
        """The mean of squares (L2), over patches and values."""
        device = patches.device
        pixels = (patches / 255 - self._mean.to(device)) / self._std.to(device)
        return F.mse_loss(predicted.float(), pixels)


def make_pretext(target: Target, spec: Preprocessing) -> Pretext:
    """The target of this name, for patches of this size."""
    if target == "pixels":
        return PixelPretext(spec)
    return ColourPretext(spec, squares=1 if target == "colour" else 4)


def colours(patches: Tensor, patch_size: int, squares: int) -> Tensor:
    """Mean colours of squares, as classes.

    Args:
        patches: uint8 `[M, P*P*C]`, (row, column, channel) inside a patch.
        patch_size: P.
        squares: S, at most P.

    Returns:
        int64 `[M, S*S]`, row by row; the first channel has the highest bits.
    """
    pixels = patches.view(len(patches), patch_size, patch_size, -1).permute(0, 3, 1, 2).float()
    levels = F.adaptive_avg_pool2d(pixels, squares).div(256 / _LEVELS).floor().long()  # [M, C, S, S]
    places = _LEVELS ** torch.arange(levels.shape[1] - 1, -1, -1, device=levels.device)
    return (levels * places[:, None, None]).sum(1).flatten(1)
