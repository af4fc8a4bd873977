from __future__ import annotations

from coam_ros.mapping.depth import depth_m_from_counts, interpolate_depth
import numpy as np
import pytest


def slanted_plane(height: int = 40, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Depth of a plane, and 1 / depth = a x + b y + c as its coefficients."""
    coefficients = np.array([0.002, -0.001, 0.3])
    y, x = np.mgrid[:height, :width]
    return (1 / (coefficients[0] * x + coefficients[1] * y + coefficients[2])).astype(
        np.float32
    ), coefficients


def test_depth_between_pixels_of_a_slanted_plane_is_exact():
    depth_m, (a, b, c) = slanted_plane()
    pixels = np.random.default_rng(0).uniform((0, 0), (59, 39), (500, 2))
    truth = 1 / (a * pixels[:, 0] + b * pixels[:, 1] + c)
    np.testing.assert_allclose(interpolate_depth(depth_m, pixels), truth, rtol=1e-6)


def test_depth_at_a_discontinuity_is_nan_and_beside_it_is_not():
    depth_m = np.full((10, 10), 1.0, np.float32)
    depth_m[:, 5:] = 2.0
    depth = interpolate_depth(depth_m, [[4.1, 5], [4.5, 5], [5, 5], [5.1, 5], [4.0, 5]])
    np.testing.assert_allclose(depth, [np.nan, np.nan, 2, 2, 1])


def test_allowed_step_grows_with_depth():
    step_m = np.float32([[0, 0, 0.19, 0.19]] * 4)
    assert interpolate_depth(4 + step_m, [[1.5, 1]])[0] == pytest.approx(4.093, abs=1e-3)
    assert np.isnan(interpolate_depth(3.6 + step_m, [[1.5, 1]])[0])


def test_hole_takes_only_its_own_pixel_away():
    depth_m = np.full((5, 5), 3.0, np.float32)
    depth_m[2, 2] = np.nan
    depth = interpolate_depth(depth_m, [[2, 2], [2.4, 2.4], [2.6, 2.6], [1.4, 2]])
    np.testing.assert_allclose(depth, [np.nan, np.nan, 3, 3])


def test_outside_and_not_finite_positions_give_nan():
    depth_m = np.full((4, 6), 3.0, np.float32)
    outside = [[-0.6, 1], [5.5, 1], [1, -0.6], [1, 3.5], [np.nan, 1], [1, np.inf]]
    assert np.isnan(interpolate_depth(depth_m, outside)).all()
    border = [[-0.5, -0.5], [5.4, 3.4], [5, 3], [0, 0]]
    assert (interpolate_depth(depth_m, border) == 3).all()


def test_no_positions_and_smallest_image():
    assert interpolate_depth(np.ones((4, 4), np.float32), np.empty((0, 2))).shape == (0,)
    assert interpolate_depth(np.ones((1, 1), np.float32), [[0, 0]])[0] == 1


def test_counts_that_mean_no_depth_become_nan():
    depth_m = depth_m_from_counts(np.array([[0, 1000, 65535]], np.uint16), 0.001)
    np.testing.assert_array_equal(depth_m, np.array([[np.nan, 1.0, np.nan]], np.float32))
