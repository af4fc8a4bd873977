from __future__ import annotations

from coam_ros.matching.drawing import draw_matches
import numpy as np
import pytest

BLACK = np.zeros((40, 60, 3), np.uint8)


def test_lines_join_the_points_in_both_halves():
    picture = draw_matches(BLACK, BLACK, [[10, 20]], [[30, 20]])
    assert picture.shape == (40, 60 + 4 + 60, 3)
    assert picture[20, 10].any()
    assert picture[20, 64 + 30].any()
    assert picture[20, 40].any()
    assert not picture[5, 10].any()


def test_image_of_another_size_is_scaled_with_its_points():
    grey = np.zeros((80, 100), np.uint8)
    picture = draw_matches(BLACK, grey, [[10, 20]], [[60.5, 40.5]])
    assert picture.shape == (40, 60 + 4 + 50, 3)
    assert picture[20, 64 + 30].any()


def test_inliers_are_green_and_outliers_red():
    picture = draw_matches(
        BLACK, BLACK, [[10, 10], [10, 30]], [[30, 10], [30, 30]], np.array([True, False])
    )
    red, green, _ = picture[10, 10].astype(int)
    assert green > red
    red, green, _ = picture[30, 10].astype(int)
    assert red > green


def test_without_a_verdict_lines_are_coloured_by_their_column_in_the_left_image():
    points = [[2, 10], [30, 30], [57, 20]]
    picture = draw_matches(BLACK, BLACK, points, points).astype(int)
    left, middle, right = (picture[y, x] for x, y in points)
    # Red, green and violet, at both ends of a line.
    assert left[0] > 200 > 100 > left[2]
    assert middle.argmax() == 1
    assert right[2] > 200 > 100 > right[1]
    np.testing.assert_array_equal(picture[10, 64 + 2], left)


def test_inliers_lie_on_top():
    points = [[10, 20], [10, 20]]
    picture = draw_matches(BLACK, BLACK, points, points, np.array([True, False]))
    red, green, _ = picture[20, 10].astype(int)
    assert green > red


def test_more_matches_than_can_be_read_are_thinned_evenly():
    points = np.column_stack([np.full(31, 10), np.arange(5, 36)])
    picture = draw_matches(BLACK, BLACK, points, points, max_matches=3)
    is_drawn = picture[:, 40].any(axis=1)
    assert is_drawn[[5, 20, 35]].all()
    assert not is_drawn[8:18].any()


@pytest.mark.parametrize('inlier_mask', [None, np.empty(0, bool)])
def test_no_matches_give_the_two_images(inlier_mask):
    none = np.empty((0, 2))
    picture = draw_matches(BLACK, BLACK, none, none, inlier_mask)
    assert not picture[:, :60].any()


def test_given_images_are_not_drawn_on_and_nan_points_are_left_out():
    image = BLACK.copy()
    picture = draw_matches(image, image, [[np.nan, 1], [5, 5]], [[1, 1], [5, 5]])
    assert not image.any()
    assert picture[5, 5].any()
