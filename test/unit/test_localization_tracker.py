from coam_ros.geometry.transforms import make_transform
from coam_ros.localization.config import TrackerConfig
from coam_ros.localization.result import FailureReason, RelocalizationResult
from coam_ros.localization.tracker import LocalizationState, LocalizationTracker
import numpy as np
import pytest
from rotations import rotation_from_vector

SEARCHING, LOCALIZED, LOST = LocalizationState
FAILED = RelocalizationResult(failure=FailureReason.TOO_FEW_INLIERS)
CONFIG = TrackerConfig(
    lost_after_s=3.0, max_speed_m_s=1.0, max_turn_rate_deg_s=90.0, confirmation_inliers=100
)


def fix(x_m=0.0, yaw_deg=0.0, num_inlier_blocks=40):
    T_map_camera = make_transform(
        rotation_from_vector([0, np.radians(yaw_deg), 0]), [x_m, 0.0, 0.0]
    )
    return RelocalizationResult(T_map_camera, np.eye(6), num_inlier_blocks=num_inlier_blocks)


@pytest.fixture
def tracker():
    return LocalizationTracker(CONFIG)


def feed(tracker, *results_and_stamps):
    """Return (state, is_published) of the last one."""
    for result, stamp_s in results_and_stamps:
        update = tracker.update(result, stamp_s)
    return update.state, update.is_published


def test_searches_until_the_first_pose(tracker):
    assert tracker.state is SEARCHING
    assert feed(tracker, (FAILED, 0.0), (FAILED, 100.0)) == (SEARCHING, False)


def test_strong_pose_is_published_at_once(tracker):
    assert feed(tracker, (fix(num_inlier_blocks=100), 0.0)) == (LOCALIZED, True)
    assert feed(tracker, (fix(8.0, 180.0, num_inlier_blocks=100), 0.5)) == (LOCALIZED, True)


def test_weak_first_pose_waits_for_one_that_agrees(tracker):
    assert feed(tracker, (fix(5.0), 0.0)) == (SEARCHING, False)
    assert feed(tracker, (fix(5.2), 0.5)) == (LOCALIZED, True)


def test_weak_poses_that_disagree_are_never_published(tracker):
    for stamp_s, x_m in enumerate([0.0, 5.0, -5.0, 12.0]):
        assert feed(tracker, (fix(x_m), float(stamp_s))) == (SEARCHING, False)


def test_weak_pose_within_reach_is_published(tracker):
    assert feed(tracker, (fix(0.0, 0.0, 200), 0.0), (fix(1.0, 60.0), 1.0)) == (LOCALIZED, True)


@pytest.mark.parametrize('jump', [fix(4.0), fix(0.0, 170.0)])
def test_weak_jump_is_held_back_and_does_not_disturb(tracker, jump):
    assert feed(tracker, (fix(num_inlier_blocks=200), 0.0), (jump, 1.0)) == (LOCALIZED, False)
    assert feed(tracker, (fix(0.1), 1.5)) == (LOCALIZED, True)
    # What was refuted confirms nothing.
    assert feed(tracker, (jump, 2.0)) == (LOCALIZED, False)


def test_kidnapped_camera_is_found_with_the_second_weak_pose(tracker):
    feed(tracker, (fix(num_inlier_blocks=200), 0.0))
    assert feed(tracker, (fix(20.0), 0.5)) == (LOCALIZED, False)
    assert feed(tracker, (FAILED, 1.0)) == (LOCALIZED, False)
    assert feed(tracker, (fix(20.4), 1.5)) == (LOCALIZED, True)


def test_is_lost_after_a_time_without_a_pose(tracker):
    feed(tracker, (fix(num_inlier_blocks=200), 0.0))
    assert feed(tracker, (FAILED, 3.0)) == (LOCALIZED, False)
    assert feed(tracker, (FAILED, 3.1)) == (LOST, False)
    assert feed(tracker, (fix(num_inlier_blocks=200), 3.5)) == (LOCALIZED, True)


def test_old_pose_confirms_nothing(tracker):
    # Once lost, a weak pose at the old place is as good as one anywhere else.
    feed(tracker, (fix(num_inlier_blocks=200), 0.0), (FAILED, 2.0))
    assert feed(tracker, (fix(), 4.0)) == (LOST, False)
    assert feed(tracker, (FAILED, 6.0), (fix(), 8.0)) == (LOST, False)
    assert feed(tracker, (fix(), 8.5)) == (LOCALIZED, True)


def test_poses_of_images_that_follow_one_another_agree_at_any_rate(tracker):
    # Every image is older than lost_after_s when the next one comes; the camera may go farther.
    assert feed(tracker, (fix(0.0), 0.0)) == (SEARCHING, False)
    assert feed(tracker, (fix(6.0), 4.0)) == (SEARCHING, False)
    assert feed(tracker, (fix(9.0), 8.0)) == (LOCALIZED, True)
    assert feed(tracker, (fix(9.0), 12.0)) == (LOCALIZED, True)
    assert feed(tracker, (fix(15.0), 16.0)) == (LOST, False)
    assert feed(tracker, (FAILED, 20.0), (fix(15.0), 24.0)) == (LOST, False)


def test_who_is_lost_for_want_of_images_is_found_by_two_poses(tracker):
    feed(tracker, (fix(num_inlier_blocks=200), 0.0))
    tracker.lose()
    assert feed(tracker, (fix(), 60.0)) == (LOST, False)
    assert feed(tracker, (fix(), 60.5)) == (LOCALIZED, True)


def test_time_that_jumps_backwards_forgets_everything(tracker):
    feed(tracker, (fix(num_inlier_blocks=200), 50.0))
    assert feed(tracker, (FAILED, 10.0)) == (SEARCHING, False)
    feed(tracker, (fix(num_inlier_blocks=200), 50.0))
    assert feed(tracker, (fix(), 10.0)) == (SEARCHING, False)
    assert feed(tracker, (fix(), 10.5)) == (LOCALIZED, True)
    # What waited is forgotten too.
    assert feed(tracker, (fix(50.0), 5.0)) == (SEARCHING, False)
    assert feed(tracker, (fix(50.0), 0.0)) == (SEARCHING, False)


def test_late_image_is_no_jump_back(tracker):
    feed(tracker, (fix(num_inlier_blocks=200), 50.0))
    assert feed(tracker, (FAILED, 49.9)) == (LOCALIZED, False)
    assert feed(tracker, (fix(0.1), 49.8)) == (LOCALIZED, True)
    # What came late does not hide a jump back that follows.
    assert feed(tracker, (FAILED, 48.9)) == (SEARCHING, False)


def test_late_pose_does_not_make_the_published_one_older(tracker):
    feed(tracker, (fix(num_inlier_blocks=200), 50.0))
    assert feed(tracker, (fix(0.1), 49.5)) == (LOCALIZED, True)
    assert feed(tracker, (FAILED, 52.8)) == (LOCALIZED, False)
    assert feed(tracker, (FAILED, 53.1)) == (LOST, False)


def test_two_images_of_one_stamp_are_no_jump_back(tracker):
    feed(tracker, (fix(num_inlier_blocks=200), 1.0))
    assert feed(tracker, (fix(0.1, 4.0), 1.0)) == (LOCALIZED, True)
