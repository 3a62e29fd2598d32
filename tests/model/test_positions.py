"""Positions resampled in the model equal the libraries' own resampling, for every image of a mixed batch."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from model.manifest import PositionInterpolation
from model.positions import AxisPositionEmbedding, PositionEmbedding

KINDS = get_args(PositionInterpolation)
GRIDS = [(14, 14), (7, 10), (1, 1), (24, 24), (1, 30), (16, 9), (37, 5), (28, 28)]


def reference(table: torch.Tensor, native: tuple[int, int], grid: tuple[int, int], kind: str) -> torch.Tensor:
    image = table.view(1, *native, -1).permute(0, 3, 1, 2)
    if kind.endswith("align-corners"):
        resampled = F.interpolate(image, size=grid, mode=kind.split("-", maxsplit=1)[0], align_corners=True)
    else:
        resampled = F.interpolate(image, size=grid, mode="bicubic", antialias=kind.endswith("antialias"))
    return resampled.flatten(2).squeeze(0).T


@pytest.mark.parametrize("interpolation", KINDS)
@pytest.mark.parametrize("native", [(14, 14), (7, 7), (16, 12), (1, 1)])
def test_equals_torch_for_every_grid_of_a_mixed_batch(
    interpolation: PositionInterpolation, native: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    positions = PositionEmbedding(native, 8, interpolation)
    longest = max(rows * columns for rows, columns in GRIDS)
    with torch.no_grad():
        batch = positions(torch.tensor(GRIDS), longest)
    assert torch.isfinite(batch).all()  # padding too: 0 * NaN would reach the valid tokens
    for row, grid in zip(batch, GRIDS, strict=True):
        expected = reference(positions.table.detach(), native, grid, interpolation)
        torch.testing.assert_close(row[: grid[0] * grid[1]], expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("interpolation", KINDS)
@pytest.mark.parametrize("native", [(14, 14), (7, 9), (37, 37)])
def test_the_native_grid_is_the_table_itself(interpolation: PositionInterpolation, native: tuple[int, int]) -> None:
    positions = PositionEmbedding(native, 16, interpolation)
    with torch.no_grad():
        resampled = positions(torch.tensor([native]), native[0] * native[1])
    assert torch.equal(resampled[0], positions.table)


@pytest.mark.parametrize("native", [(7, 7), (5, 3), (1, 1)])
def test_2d_positions_are_those_of_the_row_beside_those_of_the_column(native: tuple[int, int]) -> None:
    torch.manual_seed(0)
    positions = AxisPositionEmbedding(native, 8, "bicubic")
    with torch.no_grad():
        at_home = positions(torch.tensor([native]), native[0] * native[1])[0]
        batch = positions(torch.tensor(GRIDS), 28 * 28)
    rows, columns = positions.rows.detach(), positions.columns.detach()
    table = torch.stack([torch.cat([row, column]) for row in rows for column in columns])
    assert torch.equal(at_home, table)
    assert torch.isfinite(batch).all()
    for row, grid in zip(batch, GRIDS, strict=True):
        expected = reference(table, native, grid, "bicubic")
        torch.testing.assert_close(row[: grid[0] * grid[1]], expected, atol=2e-6, rtol=0)
