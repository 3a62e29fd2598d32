"""Plots: how maps are put together; what is drawn is looked at in `tests/model/test_figures.py`."""

import numpy as np

from model.inspection.plots import tile


def test_tiles_stand_row_by_row_with_gaps() -> None:
    images = np.arange(3.0)[:, None, None] * np.ones((3, 1, 2))
    gap = np.nan
    expected = [[0, 0, gap, 1, 1], [gap] * 5, [2, 2, gap, gap, gap]]
    np.testing.assert_array_equal(tile(images, columns=2), expected)
