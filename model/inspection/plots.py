"""The figures as PNG files.

Axes: `n` components, `P` patch side, `C` channels, `R`, `c` native rows and columns, `L` blocks, `H` heads.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.inspection.findings import Attended

_Array = NDArray[np.floating[Any]]


def plot_filters(components: _Array, path: Path) -> None:
    """Components `[n, P, P, C]`, each from its least value, black, to its largest, white."""
    flat = components.reshape(len(components), -1)
    low, high = (each[:, None, None, None] for each in (flat.min(1), flat.max(1)))
    tiles = tile((components - low) / np.maximum(high - low, 1e-12), columns=7)
    figure, axes = _blank(tiles)
    axes.imshow(np.nan_to_num(tiles, nan=1.0), interpolation="nearest")
    axes.set_title("Patch embedding: first principal components")
    figure.savefig(path)


def plot_similarity(similarity: _Array, path: Path) -> None:
    """Cosine similarities `[R, c, R, c]`: one small map for each patch, where that patch is in the image."""
    rows, columns = similarity.shape[:2]
    tiles = tile(similarity.reshape(rows * columns, rows, columns), columns)
    figure, axes = _blank(tiles)
    figure.colorbar(axes.imshow(tiles, vmin=-1, vmax=1, interpolation="nearest"), ax=axes, label="cosine similarity")
    axes.set_title("Position of each patch: similarity to all")
    figure.savefig(path)


def tile(images: _Array, columns: int) -> _Array:
    """Images `[n, h, w]` or `[n, h, w, C]` as one, row by row, with NaN between them and where none is left."""
    rows, count = math.ceil(len(images) / columns), len(images)
    height, width = images.shape[1] + 1, images.shape[2] + 1
    tiles = np.full((rows * height - 1, columns * width - 1, *images.shape[3:]), np.nan)
    for index, (row, column) in enumerate(divmod(place, columns) for place in range(count)):
        tiles[row * height : (row + 1) * height - 1, column * width : (column + 1) * width - 1] = images[index]
    return tiles


def _blank(tiles: _Array) -> tuple[Figure, Any]:
    """A figure of the shape of an image, and its axes without ticks."""
    figure = Figure(figsize=(6, 1 + 5 * tiles.shape[0] / tiles.shape[1]), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    return figure, axes


def plot_distances(distances: _Array, path: Path) -> None:
    """Mean attention distances `[L, H]`, pixels: one point for each head."""
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for head in range(distances.shape[1]):
        axes.scatter(np.arange(len(distances)) + 1, distances[:, head], s=14, label=f"head {head + 1}")
    axes.set(xlabel="block", ylabel="mean attention distance, pixels", ylim=(0, None))
    if distances.shape[1] <= 8:
        axes.legend(fontsize="small")
    figure.savefig(path)


def plot_rollout(images: Sequence[Attended], path: Path) -> None:
    """Each image beside itself, darkened where attention rollout gives little."""
    rows = math.ceil(len(images) / 2)
    figure = Figure(figsize=(8, 2.1 * rows), dpi=150, layout="constrained")
    axes = list(figure.subplots(rows, 4, squeeze=False).flat)
    for each in axes:
        each.set_axis_off()
    for index, attended in enumerate(images):
        height, width = attended.image.shape[:2]
        veil = 1 - attended.shares / max(float(attended.shares.max()), 1e-12)
        plain, veiled = axes[2 * index : 2 * index + 2]
        plain.imshow(attended.image)
        plain.set_title(attended.name[:24], fontsize=6)
        veiled.imshow(attended.image)
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        veiled.imshow(np.zeros_like(veil), cmap="gray", alpha=veil, extent=extent, interpolation="nearest")
    figure.savefig(path)
