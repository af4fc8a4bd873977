"""Figures of merit against values worked out by hand."""

from __future__ import annotations

from coam_ros.evaluation.metrics.image_pairs import (
    corner_error_px,
    error_auc,
    precision_recall,
    relative_pose_error_deg,
    share_within,
)
from coam_ros.geometry.transforms import make_transform
import numpy as np
import pytest
from rotations import rotation_from_vector

INF = float('inf')


@pytest.mark.parametrize(
    ('errors', 'max_error', 'area'),
    [
        # From (0, 0) straight to (2, 1), then level to 5: 1 + 3.
        ([2.0], 5.0, 4 / 5),
        # (0, 0) (1, 1/2) (3, 1), level to 4: 1/4 + 3/2 + 1.
        ([3.0, 1.0], 4.0, 2.75 / 4),
        # The second lies beyond: level at 1/2 from 1 to 4.
        ([1.0, 9.0], 4.0, (0.25 + 1.5) / 4),
        # A failure counts in the denominator alone.
        ([1.0, INF], 4.0, (0.25 + 1.5) / 4),
        ([0.0, 0.0], 5.0, 1.0),
        ([7.0, INF], 5.0, 0.0),
    ],
)
def test_auc_is_the_area_under_straight_lines(errors, max_error, area):
    assert error_auc(errors, [max_error])[0] == pytest.approx(area, abs=1e-12)


def test_auc_of_evenly_spread_errors_nears_half():
    # Errors k / 1000 of 1: recall = error, whose area is 1/2.
    errors = np.arange(1, 1001) / 1000
    assert error_auc(errors, [1.0])[0] == pytest.approx(0.5, abs=1e-5)


def test_auc_of_no_pairs_is_not_a_number():
    assert np.isnan(error_auc([], [5.0])).all()


def test_share_within_counts_the_limit_itself_and_no_nan():
    assert share_within([0.5, 1.0, 2.5, np.nan], [1, 2, 3]) == [0.5, 0.5, 0.75]
    assert share_within([], [1, 3]) == [0.0, 0.0]


def test_pose_error_is_the_larger_of_rotation_and_direction():
    true = make_transform(np.eye(3), [1, 0, 0])
    turned = make_transform(rotation_from_vector([0, 0, np.radians(3)]), [5, 0, 0])
    assert relative_pose_error_deg(turned, true) == pytest.approx(3, abs=1e-9)
    aside = make_transform(np.eye(3), [1, 1, 0])
    assert relative_pose_error_deg(aside, true) == pytest.approx(45, abs=1e-9)
    quarter, more = (
        make_transform(rotation_from_vector([np.radians(turn_deg), 0, 0]), [0, 0, 1])
        for turn_deg in (90, 94)
    )
    assert relative_pose_error_deg(more, quarter) == pytest.approx(4, abs=1e-9)
    backward = make_transform(np.eye(3), [-2, 0, 0])
    assert relative_pose_error_deg(backward, true) == pytest.approx(0, abs=1e-9)


def test_pose_error_without_a_baseline_is_that_of_the_rotation():
    turned = make_transform(rotation_from_vector([0, np.radians(2), 0]), [1, 0, 0])
    assert relative_pose_error_deg(turned, np.eye(4)) == pytest.approx(2, abs=1e-9)
    # The other way round it is not known where the camera went.
    assert relative_pose_error_deg(np.eye(4), turned) == pytest.approx(90)


def test_corner_error_is_the_mean_distance_of_the_four_corners():
    shift = np.array([[1, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert corner_error_px(shift, np.eye(3), (640, 480)) == pytest.approx(5)
    # Twice as wide: two corners stay, two move by 9 px.
    stretch = np.diag([2, 1, 1])
    assert corner_error_px(stretch, np.eye(3), (10, 480)) == pytest.approx(4.5)


def test_a_corner_at_infinity_is_an_infinite_error():
    horizon = np.array([[1, 0, 0], [0, 1, 0], [-1 / 9, 0, 1]])
    assert corner_error_px(horizon, np.eye(3), (10, 10)) == INF


def test_precision_recall_follows_the_scores_from_the_highest_down():
    precision, recall = precision_recall([True, False, True, False], [0.1, 0.9, 0.8, 0.05])
    np.testing.assert_allclose(precision, [0, 1 / 2, 2 / 3, 2 / 4])
    np.testing.assert_allclose(recall, [0, 1 / 2, 1, 1])


def test_equal_scores_come_at_once_so_that_their_order_does_not_matter():
    for is_right in ([True, False, True], [False, True, True]):
        precision, recall = precision_recall(is_right, [0.5, 0.5, 0.1])
        np.testing.assert_allclose(precision, [1 / 2, 2 / 3])
        np.testing.assert_allclose(recall, [1 / 2, 1])


def test_precision_recall_without_a_right_match_is_empty():
    precision, recall = precision_recall([False, False], [0.5, 0.1])
    assert len(precision) == len(recall) == 0
