"""The expected calibration error against values computed by hand."""

from pathlib import Path

import numpy as np
import pytest

from model.plots import draw_reliability
from model.reliability import Bin, calibrate


def test_two_bins_by_hand() -> None:
    found = calibrate(np.array([0.6, 0.8, 0.9, 0.3]), np.array([True, False, True, False]), bins=2)
    # 0..0.5 holds 0.3 (none right), 0.5..1 holds 0.6, 0.8, 0.9 (two of three right).
    assert found.bins == (Bin(0.3, 0.0, 1), Bin(pytest.approx(2.3 / 3), pytest.approx(2 / 3), 3))
    assert found.error == pytest.approx((1 * 0.3 + 3 * (2.3 / 3 - 2 / 3)) / 4)


def test_a_model_that_is_sure_and_right_has_no_error() -> None:
    assert calibrate(np.ones(5), np.ones(5, bool)).error == 0


def test_a_model_that_is_sure_and_wrong_has_all_of_it() -> None:
    assert calibrate(np.ones(5), np.zeros(5, bool)).error == 1


def test_a_score_on_an_edge_belongs_to_the_lower_bin() -> None:
    assert [each.images for each in calibrate(np.array([0.5, 0.51]), np.array([True, True]), bins=2).bins] == [1, 1]


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    draw_reliability(calibrate(np.array([0.2, 0.9]), np.array([False, True])), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
