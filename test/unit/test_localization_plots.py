from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('matplotlib', reason='plots need matplotlib')

from coam_ros.evaluation.reports.localization_plots import (
    plot_errors,
    plot_top_view,
    widest_plane,
)
from test_localization_metrics import failed, localized


@pytest.mark.parametrize('outcomes', [[localized(0.1), failed(), localized(0.2)], [failed()], []])
def test_plots_are_written_for_any_outcome(tmp_path: Path, outcomes):
    plot_top_view(tmp_path / 'top.png', np.eye(3), outcomes)
    plot_errors(tmp_path / 'errors.png', outcomes)
    assert cv2.imread(str(tmp_path / 'top.png')).std() > 1
    assert cv2.imread(str(tmp_path / 'errors.png')).std() > 1


def test_widest_plane_is_the_floor_that_the_camera_moved_on():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(100, 3)) * (0.01, 2, 1)  # flat along x
    plane = widest_plane(points)
    assert np.abs(plane[:, 0]).max() < 0.02
    np.testing.assert_allclose(plane @ plane.T, np.eye(2), atol=1e-9)
    assert widest_plane(np.empty((0, 3))).shape == (2, 3)
