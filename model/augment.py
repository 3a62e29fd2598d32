"""Training batches of varying resolution: uint8 images to augmented patch sequences, on tensors, whole batches at once.

One size and aspect ratio is drawn for each batch, so that the position table learns to be resampled (the idea of
FlexiViT, Beyer et al. 2023, and NaViT, Dehghani et al. 2023) while no batch carries padding.

Axes: `B` images, `C` channels, `S` source side, `h`, `w` drawn size in pixels, `P` patch side, `N` patches.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from model.distortion import distort, erase
from model.manifest import Preprocessing


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How images are varied; the defaults suit photographs."""

    native_share: float = 0.5  # of batches at the native grid; the others at a drawn size
    min_patches: int = 16  # of a drawn grid; the most is the preprocessing's max_patches
    max_aspect: float = 2.0  # of a drawn grid, either way
    zoom: tuple[float, float] = (1.0, 1.6)  # size of the object: above 1 crops, below 1 leaves a margin
    stretch: float = 1.2  # most anisotropic scaling of the object
    shift: float = 0.1  # most translation, in image sides
    flip: bool = True  # mirror left and right
    recolour: float = 0.0  # share of the images, for grey data: half inverted, half in two drawn colours
    rand_augment: int = 0  # strength of two random operations of RandAugment, 0 to 30; 0: none
    erase: float = 0.0  # share of the images with a rectangle of noise


STILL = Augmentation(native_share=1.0, zoom=(1.0, 1.0), stretch=1.0, shift=0.0, flip=False)  # for evaluation


def for_small_grey(augmentation: Augmentation) -> Augmentation:
    """For pictures like those of Fashion-MNIST, small, grey and on black: a margin, and colours that they have not."""
    return replace(augmentation, zoom=(0.85, 1.1), stretch=1.15, shift=0.07, recolour=0.5)


def calm(augmentation: Augmentation) -> Augmentation:
    """A quarter of the variation, for the end of training: the last steps see images nearly as they will be served.

    Strong variation to the end costs accuracy on plain images (Touvron et al. 2019, "Fixing the train-test resolution
    discrepancy", found it for crops).
    """
    low, high = augmentation.zoom
    return replace(
        augmentation,
        native_share=1 - (1 - augmentation.native_share) / 2,
        zoom=(low**0.25, high**0.25),
        stretch=augmentation.stretch**0.25,
        shift=augmentation.shift / 4,
        recolour=augmentation.recolour / 4,
        rand_augment=augmentation.rand_augment // 4,
        erase=augmentation.erase / 4,
    )


def draw_grid(spec: Preprocessing, augmentation: Augmentation, generator: torch.Generator) -> tuple[int, int]:
    """(rows, columns) of the next batch."""
    draw = torch.rand(3, generator=generator).tolist()
    if draw[0] < augmentation.native_share:
        return spec.native_grid
    low, high = min(augmentation.min_patches, spec.max_patches), spec.max_patches
    area = low * (high / low) ** draw[1]  # log-uniform
    aspect = augmentation.max_aspect ** (2 * draw[2] - 1)
    rows = max(1, round(math.sqrt(area / aspect)))
    return rows, max(1, min(round(area / rows), high // rows))


def augment(
    images: Tensor, grid: tuple[int, int], patch_size: int, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Vary and resize a batch, and cut it into patches.

    Args:
        images: uint8 `[B, C, S, S]`, C = 1 or 3.
        grid: (rows, columns) to make.
        patch_size: P, pixels.
        augmentation: how to vary.
        generator: of every random number, so that a seed fixes the run.

    Returns:
        uint8 `[B, N, P*P*3]` in (row, column, channel) order.
    """
    height, width = grid[0] * patch_size, grid[1] * patch_size
    side = min(height, width)
    pixels = images.float() / 255
    if side < images.shape[-1]:  # shrink with antialias first, as serving does; grid_sample alone would alias
        pixels = F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
    pixels = _warp(pixels, height, width, augmentation, generator)  # [B, C, h, w]
    if augmentation.recolour > 0:
        pixels = _recolour(pixels, augmentation.recolour, generator)
    coloured = (pixels.expand(-1, 3, -1, -1).clamp(0, 1) * 255).round().to(torch.uint8)
    if augmentation.rand_augment > 0:
        coloured = distort(coloured, augmentation.rand_augment, generator)
    if augmentation.erase > 0:
        coloured = erase(coloured, augmentation.erase, generator)
    return to_patches(coloured, patch_size)


def _warp(pixels: Tensor, height: int, width: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """One affine map an image: zoom, stretch, shift, mirror; outside the source is black."""
    batch = pixels.shape[0]
    draw = torch.rand(5, batch, generator=generator)
    low, high = augmentation.zoom
    zoom = low * (high / low) ** draw[0]
    stretch = augmentation.stretch ** (draw[1] - 0.5)
    # affine_grid maps output to source, both in -1..1: the longer side of the canvas sees more of the source plane.
    scale_x = width / min(height, width) / zoom * stretch
    scale_y = height / min(height, width) / zoom / stretch
    mirror = torch.where(draw[4] < 0.5, -1.0, 1.0) if augmentation.flip else torch.ones(batch)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale_x * mirror, scale_y
    theta[:, 0, 2], theta[:, 1, 2] = (draw[2] * 2 - 1) * augmentation.shift, (draw[3] * 2 - 1) * augmentation.shift
    points = F.affine_grid(theta, [batch, pixels.shape[1], height, width], align_corners=False)
    return F.grid_sample(pixels, points, mode="bilinear", padding_mode="zeros", align_corners=False)


def _recolour(pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Grey `[B, 1, h, w]` to RGB `[B, 3, h, w]`: some as they are, some inverted, some between two drawn colours."""
    batch = pixels.shape[0]
    kind = torch.rand(batch, 1, 1, 1, generator=generator)
    colours = torch.rand(2, batch, 3, 1, 1, generator=generator)
    as_it_is, inverted = kind < 1 - share, kind < 1 - share / 2
    black, white = torch.zeros(()), torch.ones(())
    far = torch.where(colours[0] < 0.5, 1.0, 0.0)  # the farthest colour from the background, so that contrast stays
    background = torch.where(as_it_is, black, torch.where(inverted, white, colours[0]))
    painted = torch.where(as_it_is, white, torch.where(inverted, black, (far + colours[1]) / 2))
    return background + (painted - background) * pixels


def to_patches(pixels: Tensor, patch_size: int) -> Tensor:
    """`[B, 3, h, w]` to `[B, N, P*P*3]`, row by row, (row, column, channel) inside: `preprocess.patchify` in torch."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    cut = pixels.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)
