"""Views against values worked out by hand."""

from __future__ import annotations

from coam_ros.geometry.image_views import apply_homography, resize_view, transform
import numpy as np

# Shifts by 2 px where x is 0; x = 4 lies at infinity.
HORIZON = np.array([[1, 0, 2], [0, 1, 0], [-1 / 4, 0, 1]])


def test_a_homography_divides_by_depth():
    moved = apply_homography([(0, 5), (2, 1)], HORIZON)
    np.testing.assert_allclose(moved, [(2, 5), (8, 2)], rtol=1e-15)
    assert apply_homography([], HORIZON).shape == (0, 2)


def test_what_goes_to_infinity_or_is_unknown_is_nan():
    assert np.isnan(apply_homography([(4, 1), (np.nan, 1)], HORIZON)).all()


def test_a_resize_keeps_the_outer_edges_of_the_border_pixels():
    corners = [(-0.5, -0.5), (7.5, 5.5)]
    resized = transform(corners, resize_view(0.5, 3))
    np.testing.assert_allclose(resized, [(-0.5, -0.5), (3.5, 17.5)])
    np.testing.assert_array_equal(resize_view(2), resize_view(2, 2))


def test_points_of_images_are_float32():
    moved = transform([(0, 5)], HORIZON)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, [(2, 5)])
