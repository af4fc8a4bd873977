from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('matplotlib', reason='plots need matplotlib')

from coam_ros.evaluation.reports.localization_plots import (
    draw_result,
    plot_errors,
    plot_top_view,
    widest_plane,
)
from coam_ros.localization import KeyframeMatches, RelocalizationResult
from coam_ros.mapping.keyframe_map import KeyframeMap
from map_samples import HEIGHT, make_image, make_keyframe, WIDTH
from test_localization_metrics import failed, localized


def matches_with(keyframe_id: int, num_inliers: int) -> KeyframeMatches:
    points = np.random.default_rng(0).uniform(0, 40, (5, 2)).astype(np.float32)
    inlier_mask = np.arange(5) < num_inliers
    return KeyframeMatches(keyframe_id, points, points, points[:, 0], np.ones((5, 3)), inlier_mask)


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


def test_picture_shows_the_keyframe_with_most_inliers_that_is_still_in_the_map():
    keyframe_map = KeyframeMap([make_keyframe(id=1), make_keyframe(id=2)])
    result = RelocalizationResult(
        keyframe_matches=(matches_with(1, 1), matches_with(2, 4), matches_with(3, 5))
    )
    picture = draw_result(make_image(), keyframe_map, result)
    assert picture.shape == (HEIGHT, 2 * WIDTH + 4, 3)
    assert draw_result(make_image(), KeyframeMap(), result) is None
