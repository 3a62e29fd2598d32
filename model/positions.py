"""Learned position embeddings, resampled inside the model for each image's own patch grid.

The table was trained on one grid (paper section 3.1); at another resolution section 3.2 interpolates it in 2-D. The
libraries do that once, on the host, for one image size. Here the resampling is part of the forward pass, computed from
`grid`: bicubic and bilinear kernels are separable, so the weights of an output patch over the table are the product of
a row kernel and a column kernel, and every image of a mixed batch gets its own grid from one matrix product. The same
module serves PyTorch and export. At the native grid the weights are exactly 0 and 1: the table passes unchanged.

Axes: `B` images, `N` patches (padded), `G` native grid side (rows `R`, columns `C`), `D` width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.architecture import ViTConfig
from model.manifest import PositionInterpolation

Grid = tuple[int, int]


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel, 1981; zero from distance 2 on."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _bicubic(index: Tensor, size: Tensor, native: int) -> Tensor:
    """`torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`: a = -0.75, edges repeated."""
    return _four_taps((index + 0.5) * native / size - 0.5, native)


def _bicubic_align_corners(index: Tensor, size: Tensor, native: int) -> Tensor:
    """`interpolate(mode="bicubic", align_corners=True)`, as torchvision does it: corners coincide, else as above."""
    return _four_taps(_aligned(index, size, native), native)


def _four_taps(source: Tensor, native: int) -> Tensor:
    """Cubic weights around each source coordinate; what lies outside the table is its edge."""
    taps = torch.arange(-2, native + 2, device=source.device)  # every tap that a source inside the table can reach
    weights = _cubic(source.unsqueeze(-1) - taps, -0.75)
    edges = nn.functional.one_hot(taps.clamp(0, native - 1), native).to(weights.dtype)
    return weights @ edges


def _bicubic_antialias(index: Tensor, size: Tensor, native: int) -> Tensor:
    """`interpolate(..., antialias=True)`, as timm does it: a = -0.5, widened when shrinking, weights sum to 1."""
    scale = native / size
    taps = torch.arange(native, device=index.device)
    centre = ((index + 0.5) * scale).unsqueeze(-1)
    weights = _cubic((taps + 0.5 - centre) / scale.clamp(min=1.0).unsqueeze(-1), -0.5)
    return weights / weights.sum(-1, keepdim=True)


def _bilinear_align_corners(index: Tensor, size: Tensor, native: int) -> Tensor:
    """`scipy.ndimage.zoom(order=1)`, as the original JAX code does it: the corners of both grids coincide."""
    taps = torch.arange(native, device=index.device)
    return (1 - (_aligned(index, size, native).unsqueeze(-1) - taps).abs()).clamp(min=0.0)


def _aligned(index: Tensor, size: Tensor, native: int) -> Tensor:
    """Coordinates in the table when the first and last patch are its first and last entry."""
    return index * (native - 1) / (size - 1).clamp(min=1.0)


_KERNELS = {
    "bicubic": _bicubic,
    "bicubic-antialias": _bicubic_antialias,
    "bicubic-align-corners": _bicubic_align_corners,
    "bilinear-align-corners": _bilinear_align_corners,
}


def axis_weights(index: Tensor, size: Tensor, native: int, interpolation: PositionInterpolation) -> Tensor:
    """Weights of one axis of the table for patches of one axis of an image.

    Args:
        index: float32 `[B, N]`, row (or column) of each patch in its image's grid, 0 to size - 1.
        size: float32 `[B, 1]`, rows (or columns) of each image's grid.
        native: rows (or columns) G of the table.
        interpolation: which kernel.

    Returns:
        float32 `[B, N, G]`; each row sums to 1.
    """
    return _KERNELS[interpolation](index, size, native)


class Places(NamedTuple):
    """Where patches are, as shares of the native rows and columns: at the native grid one 1 and zeros."""

    rows: Tensor  # [B, N, R]
    columns: Tensor  # [B, N, C]


def find_places(grid: Tensor, patches: int, native_grid: Grid, interpolation: PositionInterpolation) -> Places:
    """The places of the patches of a padded batch.

    Args:
        grid: int64 `[B, 2]`, rows and columns of each image.
        patches: N, the padded number of patches.
        native_grid: R and C.
        interpolation: which kernel.

    Returns:
        float32; padding gets finite values that nothing reads.
    """
    rows, columns = grid[:, :1], grid[:, 1:]  # [B, 1] each
    place = torch.arange(patches, device=grid.device)
    row = torch.minimum(place // columns, rows - 1).float()  # padding stays inside the grid: no 0/0 there
    column = (place % columns).float()
    return Places(
        axis_weights(row, rows.float(), native_grid[0], interpolation),
        axis_weights(column, columns.float(), native_grid[1], interpolation),
    )


class PositionEmbedding(nn.Module):
    """A learned table `[R*C, D]`, resampled to each image's grid: what the paper calls 1-D.

    Costs `2*N*R*C*D` operations an image: by count 0.2 % of the forward pass of ViT-B/16 with its 14x14 table, 0.4 %
    of ViT-L/14 with a 37x37 table.
    """

    def __init__(self, native_grid: Grid, width: int, interpolation: PositionInterpolation) -> None:
        super().__init__()
        self.native_grid = native_grid
        self.interpolation = interpolation
        self.table = nn.Parameter(torch.empty(native_grid[0] * native_grid[1], width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, grid: Tensor, patches: int) -> Tensor:
        """Positions for a padded batch.

        Args:
            grid: int64 `[B, 2]`, rows and columns of each image.
            patches: N, the padded number of patches.

        Returns:
            `[B, N, D]` in the table's dtype; padding gets finite values that nothing reads.
        """
        places = find_places(grid, patches, self.native_grid, self.interpolation)
        weights = (places.rows.unsqueeze(-1) * places.columns.unsqueeze(-2)).flatten(2)  # [B, N, R*C]
        return weights.to(self.table.dtype) @ self.table

    def resampled(self, grid: Grid) -> dict[str, Tensor]:
        """The weights for another native grid; images of that grid get the positions that they get now."""
        return {"table": self(torch.tensor([grid], device=self.table.device), grid[0] * grid[1])[0]}


class AxisPositionEmbedding(nn.Module):
    """The paper's 2-D positions: one learned table of rows `[R, D/2]`, one of columns `[C, D/2]`, side by side."""

    def __init__(self, native_grid: Grid, width: int, interpolation: PositionInterpolation) -> None:
        super().__init__()
        self.native_grid = native_grid
        self.interpolation = interpolation
        self.rows = nn.Parameter(torch.empty(native_grid[0], width // 2))
        self.columns = nn.Parameter(torch.empty(native_grid[1], width // 2))
        for table in (self.rows, self.columns):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, grid: Tensor, patches: int) -> Tensor:
        """As `PositionEmbedding.forward`."""
        places = find_places(grid, patches, self.native_grid, self.interpolation)
        dtype = self.rows.dtype
        return torch.cat([places.rows.to(dtype) @ self.rows, places.columns.to(dtype) @ self.columns], dim=-1)

    def resampled(self, grid: Grid) -> dict[str, Tensor]:
        """As `PositionEmbedding.resampled`."""
        positions = self(torch.tensor([grid], device=self.rows.device), grid[0] * grid[1])[0]
        half = self.rows.shape[1]
        return {"rows": positions[:: grid[1], :half], "columns": positions[: grid[1], half:]}


def make_positions(config: ViTConfig, native_grid: Grid) -> nn.Module | None:
    """What is added to embedded patches; None where patches have no position, or have it in attention."""
    if config.positions == "1d":
        return PositionEmbedding(native_grid, config.width, config.position_interpolation)
    if config.positions == "2d":
        return AxisPositionEmbedding(native_grid, config.width, config.position_interpolation)
    return None
