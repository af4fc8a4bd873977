"""Views against values worked out by hand."""

from __future__ import annotations

from coam_ros.geometry.image_views import (
    apply_homography,
    is_inside,
    resize_view,
    rotation_2d,
    transform,
    warp,
)
import numpy as np
import pytest

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


def test_a_turn_goes_from_x_towards_y():
    np.testing.assert_allclose(rotation_2d(30) @ [1, 0], [np.sqrt(0.75), 0.5])


@pytest.mark.parametrize('scale', [0.9, 0.6, 0.3, 0.11])
def test_what_a_warp_draws_lies_where_its_view_says(scale):
    y, x = np.mgrid[0:301, 0:403]  # odd: halving does not halve it exactly
    blob = 255 * np.exp(-((x - 211) ** 2 + (y - 122) ** 2) / (2 * 30.0**2))
    image = np.repeat(blob.astype(np.uint8)[..., None], 3, axis=2)
    view = resize_view(scale)
    view[:2, 2] += 5
    small = warp(image, view, (403, 301))[..., 0].astype(float)
    centre = (x * small).sum() / small.sum(), (y * small).sum() / small.sum()
    np.testing.assert_allclose(centre, transform([(211, 122)], view)[0], atol=0.05)


@pytest.mark.parametrize('scale', [0.6, 0.3])
def test_stripes_too_fine_for_a_view_become_grey(scale):
    image = np.zeros((200, 200, 3), np.uint8)
    image[:, ::2] = 200
    size = round(200 * scale)
    inner = warp(image, resize_view(scale), (size, size))[5:-5, 5:-5]
    np.testing.assert_allclose(inner, 100, atol=15)


def test_inside_is_between_the_centres_of_the_border_pixels():
    points = np.array([(0, 0), (7, 5), (7.1, 5), (7, 5.1), (-0.1, 0), (0, -0.1), (np.nan, 0)])
    assert is_inside(points, (8, 6)).tolist() == [True, True, *[False] * 5]


def test_points_of_images_are_float32():
    moved = transform([(0, 5)], HORIZON)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, [(2, 5)])
