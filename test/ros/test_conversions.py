from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import re

import numpy as np
import pytest
from rotations import rotation_from_vector

pytest.importorskip('rclpy')

from coam_msgs.msg import RelocalizationStatus
from coam_ros.geometry.camera import CalibrationError, PinholeCamera
from coam_ros.geometry.transforms import make_transform
from coam_ros.localization import FailureReason, KeyframeMatches
from coam_ros.mapping.errors import MapFormatError
from coam_ros.nodes import conversions
from coam_ros.nodes.attempt import prior_from_message
from geometry_msgs.msg import Point, Pose, PoseWithCovarianceStamped
from map_samples import make_keyframe
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

T_MAP_CAMERA = make_transform(rotation_from_vector([0.3, -1.2, 2.0]), [1.5, -2.25, 0.125])
DISTORTED = PinholeCamera(64, 48, 60.0, 62.0, 31.0, 24.5, (0.1, -0.2, 0.001, 0.002, 0.0))
FISHEYE = PinholeCamera(64, 48, 60.0, 62.0, 31.0, 24.5, (0.1, -0.2, 0.01, 0.0), 'equidistant')


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


def test_poses_go_there_and_back():
    message = over_the_wire(conversions.pose_from_transform(T_MAP_CAMERA))
    np.testing.assert_allclose(conversions.transform_from_pose(message), T_MAP_CAMERA, atol=1e-12)


@pytest.mark.parametrize('seconds', [0.0, 12.5, 1_700_000_000.123456])
def test_stamps_go_there_and_back(seconds):
    stamp = conversions.stamp_from_seconds(seconds)
    assert conversions.seconds_from_stamp(stamp) == pytest.approx(seconds, abs=1e-6)


def test_pose_that_is_not_finite_is_refused():
    message = conversions.pose_from_transform(T_MAP_CAMERA)
    message.position.x = float('nan')
    with pytest.raises(ValueError, match='not finite'):
        conversions.transform_from_pose(message)


def test_covariance_keeps_its_order():
    covariance = np.arange(36.0).reshape(6, 6)
    message = conversions.pose_with_covariance(T_MAP_CAMERA, covariance, Header(frame_id='map'))
    np.testing.assert_array_equal(over_the_wire(message).pose.covariance, np.arange(36.0))


@pytest.mark.parametrize('camera', [DISTORTED, replace(DISTORTED, distortion=(0.0,) * 5)])
def test_camera_info_goes_there_and_back(camera):
    info = over_the_wire(conversions.info_from_camera(camera, Header()))
    assert conversions.camera_from_info(info) == camera
    rectified = conversions.camera_from_info(info, is_rectified=True)
    assert rectified == replace(camera, distortion=())


def test_rectified_images_use_the_projection_matrix():
    info = conversions.info_from_camera(DISTORTED, Header())
    info.p = [50.0, 0.0, 30.0, 0.0, 0.0, 51.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    camera = conversions.camera_from_info(info, is_rectified=True)
    assert camera == PinholeCamera(64, 48, 50.0, 51.0, 30.0, 20.0)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({}, r'k\[0\] = 0'),
        ({'k': [60.0, 0.0, 31.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0]}, '0 x 0 px'),
        ({'k': [float('nan')] * 9, 'width': 64, 'height': 48}, 'nan'),
    ],
)
def test_calibrations_that_are_none_are_refused(fields, words):
    with pytest.raises(CalibrationError, match=words):
        conversions.camera_from_info(CameraInfo(**fields))


LANDMARKS = {
    'landmark_pixels': np.float32([[1.5, 2.5], [30, 40]]),
    'landmark_points_map': np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
}


@pytest.mark.parametrize(
    'fields',
    [
        {},
        {'depth': None},
        {'depth': None, **LANDMARKS},
        {'camera': FISHEYE},
        {'camera': DISTORTED, 'T_map_camera': T_MAP_CAMERA, 'depth_scale_m': 0.0002},
        {'global_descriptor': np.float32([0.6, 0.8])},
    ],
)
def test_keyframes_go_there_and_back(fields):
    keyframe = make_keyframe(**fields)
    back = conversions.keyframe_from_message(
        over_the_wire(conversions.keyframe_to_message(keyframe))
    )
    assert (back.id, back.stamp_s, back.camera) == (keyframe.id, keyframe.stamp_s, keyframe.camera)
    assert (back.image, back.depth) == (keyframe.image, keyframe.depth)
    assert back.depth_scale_m == keyframe.depth_scale_m
    np.testing.assert_allclose(back.T_map_camera, keyframe.T_map_camera, atol=1e-12)
    for name in ('landmark_pixels', 'landmark_points_map', 'global_descriptor'):
        expected = getattr(keyframe, name)
        if expected is None:
            assert getattr(back, name) is None
        else:
            np.testing.assert_array_equal(getattr(back, name), expected)


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda m: setattr(m.pose.position, 'x', float('nan')), 'not finite'),
        (lambda m: setattr(m.pose.orientation, 'w', 0.0), 'No rotation'),
        (lambda m: setattr(m, 'width', 65), '64 x 48'),
        (lambda m: setattr(m, 'image', m.image[:8]), 'image'),
        (lambda m: setattr(m, 'id', -1), 'at least 0'),
        (lambda m: setattr(m, 'landmark_pixels', [1.0, 2.0, 3.0]), 'multiple of 2'),
        (lambda m: setattr(m, 'landmark_pixels', [1.0, 2.0]), 'come together'),
        (lambda m: setattr(m, 'k', [0.0] * 9), 'calibrated'),
    ],
)
def test_broken_keyframes_are_refused_by_name(spoil, words):
    message = conversions.keyframe_to_message(make_keyframe())
    spoil(message)
    with pytest.raises(MapFormatError, match=f'Keyframe .*{words}'):
        conversions.keyframe_from_message(message)


MATCHES = KeyframeMatches(
    keyframe_id=4,
    query_pixels=np.float32([[1, 2], [3, 4]]),
    keyframe_pixels=np.float32([[5, 6], [7, 8]]),
    scores=np.float32([0.75, 0.5]),
    points_map=np.array([[1.0, 2.0, 3.0], [np.nan] * 3]),
    inlier_mask=np.array([True, False]),
)
NO_MATCHES = KeyframeMatches(
    keyframe_id=5,
    query_pixels=np.empty((0, 2), np.float32),
    keyframe_pixels=np.empty((0, 2), np.float32),
    scores=np.empty(0, np.float32),
    points_map=np.empty((0, 3)),
    inlier_mask=np.empty(0, bool),
)


def matches_over_the_wire(matches):
    return over_the_wire(
        conversions.matches_to_message(
            matches,
            Header(frame_id='camera'),
            map_frame_id='map',
            engine_id='model-1',
            query_size=(640, 480),
            keyframe_size=(320, 240),
        )
    )


def test_matches_are_flat_arrays_with_nan_where_no_landmark_is_known():
    message = matches_over_the_wire(MATCHES)
    assert (message.keyframe_id, message.engine_id, message.map_frame_id) == (4, 'model-1', 'map')
    assert (message.query_width, message.query_height) == (640, 480)
    assert (message.keyframe_width, message.keyframe_height) == (320, 240)
    assert list(message.query_pixels) == [1, 2, 3, 4]
    assert list(message.keyframe_pixels) == [5, 6, 7, 8]
    assert list(message.scores) == [0.75, 0.5]
    assert list(message.inlier_mask) == [1, 0]
    np.testing.assert_array_equal(message.landmarks, [1, 2, 3, np.nan, np.nan, np.nan])


@pytest.mark.parametrize('matches', [MATCHES, NO_MATCHES])
def test_matches_go_there_and_back(matches):
    back = conversions.matches_from_message(matches_over_the_wire(matches))
    assert back.keyframe_id == matches.keyframe_id
    for name in ('query_pixels', 'keyframe_pixels', 'scores', 'points_map', 'inlier_mask'):
        expected, got = getattr(matches, name), getattr(back, name)
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype


def test_every_reason_of_the_core_has_a_constant_in_the_message():
    reasons = {reason.name: getattr(RelocalizationStatus, reason.name) for reason in FailureReason}
    assert len(set(reasons.values())) == len(reasons)
    assert all(0 < value < RelocalizationStatus.NO_CAMERA_INFO for value in reasons.values())


def test_every_value_of_a_status_has_its_name():
    file = Path(__file__).parents[2] / 'coam_msgs/msg/RelocalizationStatus.msg'
    declared = re.findall(r'^uint8 (\w+)=(\d+)', file.read_text(), re.MULTILINE)
    first_reason = [name for name, _ in declared].index('NONE')
    for names, of_message in (
        (conversions.STATE_NAMES, declared[:first_reason]),
        (conversions.REASON_NAMES, declared[first_reason:]),
    ):
        assert names == {int(value): name.lower() for name, value in of_message}


def prior_message(**fields):
    message = PoseWithCovarianceStamped(header=Header(frame_id='map'))
    message.pose.pose = conversions.pose_from_transform(T_MAP_CAMERA)
    for name, value in fields.items():
        setattr(message.pose, name, value)
    return message


def test_radius_of_a_prior_grows_with_its_covariance():
    assert prior_from_message(prior_message(), 'map', 5.0).radius_m == 5.0
    covariance = np.diag([0.25, 4.0, 0.01, 0.0, 0.0, 0.0]).ravel()
    prior = prior_from_message(prior_message(covariance=covariance), 'map', 5.0)
    assert prior.radius_m == pytest.approx(5.0 + 3 * 2.0)
    np.testing.assert_allclose(prior.T_map_frame, T_MAP_CAMERA)


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (PoseWithCovarianceStamped(), "frame ''"),
        (prior_message(covariance=np.full(36, np.nan)), 'covariance'),
        (prior_message(pose=Pose(position=Point(x=float('inf')))), 'not finite'),
    ],
)
def test_priors_that_are_none_are_refused(message, words):
    with pytest.raises(ValueError, match=words):
        prior_from_message(message, 'map', 5.0)


def test_transforms_go_there_and_back():
    message = over_the_wire(conversions.tf_from_transform(T_MAP_CAMERA))
    np.testing.assert_allclose(conversions.transform_from_tf(message), T_MAP_CAMERA, atol=1e-12)
