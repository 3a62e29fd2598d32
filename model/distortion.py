"""RandAugment (Cubuk et al. 2020) and random erasing (Zhong et al. 2020) of batches, with torchvision's operators.

Axes: `B` images, `C` channels, `h`, `w` sides in pixels.
"""

import torch
from torch import Tensor

_GROUPS = 16  # parts of a batch with operations of their own: an operator is called once for each, not for each image


def distort(pixels: Tensor, magnitude: int, generator: torch.Generator) -> Tensor:
    """Two random operations of RandAugment for each part of the batch.

    Args:
        pixels: uint8 `[B, C, h, w]`.
        magnitude: strength, 0..30; 9 is usual.
        generator: of every random number.
    """
    from torchvision.transforms import v2  # noqa: PLC0415 - a second that only this needs

    distortion = v2.RandAugment(num_ops=2, magnitude=magnitude)
    parts = []
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        parts = [distortion(part) for part in pixels.tensor_split(min(_GROUPS, len(pixels)))]
    return torch.cat(parts)


def erase(pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Cover one rectangle with noise in that share of the images: 2 % to 33 % of the area, ratios from 0.3 to 3.3.

    Args:
        pixels: uint8 `[B, C, h, w]`.
        share: of the images, 0..1.
        generator: of every random number.
    """
    batch, _, height, width = pixels.shape
    draw = torch.rand(5, batch, generator=generator)
    area = (0.02 + 0.31 * draw[0]) * height * width
    ratio = 0.3 * (3.3 / 0.3) ** draw[1]
    tall, wide = (area * ratio).sqrt().clamp(max=height), (area / ratio).sqrt().clamp(max=width)
    top, left = draw[2] * (height - tall), draw[3] * (width - wide)
    inside = _between(height, top, tall)[:, :, None] & _between(width, left, wide)[:, None, :]  # [B, h, w]
    erased = inside & (draw[4] < share)[:, None, None]
    noise = torch.randint(256, pixels.shape, dtype=torch.uint8, generator=generator)
    return torch.where(erased[:, None], noise, pixels)


def _between(side: int, start: Tensor, length: Tensor) -> Tensor:
    """Which of `side` pixels lie in each interval: `[B]`, `[B]` to `[B, side]`."""
    place = torch.arange(side) + 0.5
    return (place >= start[:, None]) & (place < (start + length)[:, None])
