"""The base's pose and map -> odom, with the real TF; it comes with a ROS installation only."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from rotations import rotation_from_vector

pytest.importorskip('rclpy')
tf2_ros = pytest.importorskip('tf2_ros', reason='tf2_ros is not on PyPI')

from coam_msgs.msg import RelocalizationStatus  # noqa: E402
from coam_msgs.srv import Relocalize  # noqa: E402
from coam_ros.geometry.transforms import (  # noqa: E402
    invert,
    make_transform,
    pose_error,
)
from coam_ros.mapping.storage import load_map  # noqa: E402
from coam_ros.nodes import qos  # noqa: E402
from coam_ros.nodes.conversions import (  # noqa: E402
    info_from_camera,
    pose_from_transform,
    seconds_from_stamp,
    stamp_from_seconds,
    tf_from_transform,
    transform_from_pose,
    transform_from_tf,
)
from coam_ros.nodes.map_recorder_node import MapRecorderNode  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped  # noqa: E402
from ros_harness import CAMERA, set_clock, wait_until  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

T_BASE_CAMERA = make_transform(rotation_from_vector([-1.2, 1.2, -1.2]), [0.3, -0.1, 0.5])
T_ODOM_BASE = make_transform(rotation_from_vector([0.0, 0.0, 0.8]), [4.0, -2.0, 0.0])


class Body:
    """A robot that tells TF where its camera is and where odometry believes itself."""

    def __init__(self, robot):
        self._node = robot.node
        self._static = tf2_ros.StaticTransformBroadcaster(robot.node)
        self._moving = tf2_ros.TransformBroadcaster(robot.node)
        self._static.sendTransform(
            self._message('base_link', 'camera_optical', T_BASE_CAMERA, 0.0)
        )

    def send_odometry(self, stamp_s):
        self.move('odom', 'base_link', T_ODOM_BASE, stamp_s)

    def move(self, parent, child, matrix, stamp_s):
        # TF interpolates between neighbours.
        for offset_s in (-0.1, 0.1):
            self._moving.sendTransform(self._message(parent, child, matrix, stamp_s + offset_s))

    def _message(self, parent, child, matrix, stamp_s):
        message = TransformStamped(child_frame_id=child, transform=tf_from_transform(matrix))
        message.header.frame_id = parent
        message.header.stamp = stamp_from_seconds(stamp_s)
        return message


@pytest.fixture
def start(robot, scene):
    def start(**parameters):
        parameters = {'base_frame': 'base_link', 'tf_timeout_s': 1.0, **parameters}
        node = robot.start_matcher(map_path=str(scene.map_path), **parameters)
        body = Body(robot)
        wait_until(
            lambda: node._transforms._buffer.can_transform(
                'base_link', 'camera_optical', stamp_from_seconds(0.0)
            )
        )
        return node, body

    return start


def test_pose_of_the_base_is_published_with_its_own_covariance(robot, scene, start):
    pixels, T_map_camera = scene.view(0.3)
    plain = robot.start_matcher(map_path=str(scene.map_path))
    robot.send(robot.image(pixels))
    of_camera = robot.poses.wait_for().pose
    robot.stop_node(plain)
    start()
    image = robot.image(pixels)
    status = robot.send(image)
    assert status.reason == RelocalizationStatus.NONE, status.message
    pose = robot.poses.wait_for(lambda pose: pose.header.stamp == image.header.stamp)
    T_map_base = transform_from_pose(pose.pose.pose)
    distance_m, angle_deg = pose_error(T_map_base, T_map_camera @ invert(T_BASE_CAMERA))
    assert distance_m < 0.05
    assert angle_deg < 1.5
    # A small turn of the camera about itself moves the base by its cross product with the lever.
    x, y, z = T_map_base[:3, 3] - transform_from_pose(of_camera.pose)[:3, 3]
    jacobian = np.eye(6)
    jacobian[:3, 3:] = [[0, z, -y], [-z, 0, x], [y, -x, 0]]
    expected = jacobian @ np.reshape(of_camera.covariance, (6, 6)) @ jacobian.T
    np.testing.assert_allclose(
        np.reshape(pose.pose.covariance, (6, 6)), expected, atol=1e-3 * np.abs(expected).max()
    )


def test_a_matcher_that_was_cleaned_up_hears_of_no_jump_of_time(robot, scene):
    node = robot.start_matcher(
        map_path=str(scene.map_path), base_frame='base_link', use_sim_time=True
    )
    clock = robot.talk(Clock, '/clock', qos.events())
    set_clock(clock, node, 100)
    Body(robot).send_odometry(99.0)
    buffer = node._transforms._buffer

    def knows():
        return buffer.can_transform('odom', 'base_link', stamp_from_seconds(99.0))

    wait_until(knows)
    assert robot.change_state('matcher', 'deactivate')
    assert robot.change_state('matcher', 'cleanup')
    # A jump clears what the buffer knows.
    set_clock(clock, node, 10)
    assert knows()


@pytest.mark.parametrize('base_frame', ['base_link', ''])
def test_map_to_odom_is_sent_again_and_again_from_the_first_pose_on(
    robot, scene, start, base_frame
):
    node, body = start(publish_tf=True, transform_tolerance_s=0.5, base_frame=base_frame)
    sent = robot.listen(TFMessage, '/tf', 10)

    def map_to_odom(message):
        return message.transforms[0].header.frame_id == 'map'

    body.send_odometry(1000.5)
    robot.send(robot.image(scene.other_image))
    assert not [message for message in sent.messages if map_to_odom(message)]
    body.send_odometry(1001.0)
    pixels, T_map_camera = scene.view(0.3)
    before_s = robot.node.get_clock().now().nanoseconds * 1e-9
    status = robot.send(robot.image(pixels))
    assert status.reason == RelocalizationStatus.NONE, status.message
    wait_until(lambda: len([m for m in sent.messages if map_to_odom(m)]) >= 5)
    messages = [m.transforms[0] for m in sent.messages if map_to_odom(m)]
    assert {m.child_frame_id for m in messages} == {'odom'}
    stamps_s = [seconds_from_stamp(m.header.stamp) for m in messages]
    assert np.all(np.diff(stamps_s) > 0)
    assert stamps_s[0] > before_s + 0.5
    T_map_base = transform_from_tf(messages[-1].transform) @ T_ODOM_BASE
    distance_m, _ = pose_error(T_map_base, T_map_camera @ invert(T_BASE_CAMERA))
    assert distance_m < 0.05
    assert robot.change_state('matcher', 'deactivate')
    assert node._T_map_odom is None


def test_transforms_are_those_of_the_time_of_the_image(robot, scene, start):
    node, body = start(publish_tf=True)
    body.move('base_link', 'turning_camera', T_BASE_CAMERA, 1000.5)
    body.send_odometry(1000.5)
    for parent, child in (('base_link', 'turning_camera'), ('odom', 'base_link')):
        body.move(parent, child, np.eye(4), 1001.5)
    later = stamp_from_seconds(1001.5)
    wait_until(lambda: node._transforms._buffer.can_transform('odom', 'turning_camera', later))
    pixels, T_map_camera = scene.view(0.3)
    image = robot.image(pixels, 1000.5)
    image.header.frame_id = 'turning_camera'
    status = robot.send(image)
    assert status.reason == RelocalizationStatus.NONE, status.message
    T_map_base = transform_from_pose(robot.poses.wait_for().pose.pose)
    for found in (T_map_base, node._T_map_odom @ T_ODOM_BASE):
        distance_m, _ = pose_error(found, T_map_camera @ invert(T_BASE_CAMERA))
        assert distance_m < 0.05


def test_a_matcher_that_is_cleaned_up_gives_back_all_that_tf_took(robot, scene, start):
    node, _ = start(publish_tf=True)

    def clean_up():
        assert robot.change_state('matcher', 'cleanup')
        return [len(list(held)) for held in (node.subscriptions, node.publishers, node.services)]

    assert robot.change_state('matcher', 'deactivate')
    held = clean_up()
    assert robot.change_state('matcher', 'configure')
    assert clean_up() == held


def test_recorder_takes_poses_from_tf(robot, scene, tmp_path):
    recorder = robot.start(
        MapRecorderNode, map_path=str(tmp_path / 'map'), map_frame='odom', uses_depth=False
    )
    wait_until(lambda: recorder.lifecycle_label == 'active' or recorder.last_error)
    body = Body(robot)
    image = robot.image(scene.view(0.3)[0])
    body.send_odometry(seconds_from_stamp(image.header.stamp))
    robot.infos.publish(info_from_camera(CAMERA, image.header))
    robot.images.publish(image)
    wait_until(lambda: len(recorder._map) == 1)
    robot.stop_node(recorder)
    (keyframe,) = load_map(tmp_path / 'map')
    np.testing.assert_allclose(keyframe.T_map_camera, T_ODOM_BASE @ T_BASE_CAMERA, atol=1e-9)


def test_missing_transform_is_a_reason_and_no_pose(robot, scene, start):
    node, body = start(publish_tf=True)
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == RelocalizationStatus.NO_TRANSFORM
    assert status.state == RelocalizationStatus.SEARCHING
    assert "'odom'" in status.message
    assert not robot.poses.messages
    lookup = node._transforms.lookup

    def lookup_before_it_is_sent(target, *others):
        if target == 'odom':
            threading.Timer(0.2, body.send_odometry, [1001.0]).start()
        return lookup(target, *others)

    node._transforms.lookup = lookup_before_it_is_sent
    assert robot.send(robot.image(scene.view(0.3)[0])).reason == RelocalizationStatus.NONE


def test_prior_of_the_base_is_taken_to_the_camera(robot, scene, start):
    start(prior_radius_m=0.5)
    pixels, T_map_camera = scene.view(0.3)
    robot.send(robot.image(pixels))
    prior = PoseWithCovarianceStamped()
    prior.header.frame_id = 'map'
    prior.pose.pose = pose_from_transform(T_map_camera @ invert(T_BASE_CAMERA))
    future = robot.call_async(
        Relocalize, 'relocalize', use_prior=True, prior=prior, timeout_s=60.0
    )
    for _ in range(5):
        robot.send(robot.image(pixels))
        if future.done():
            break
    wait_until(future.done)
    assert future.result().success, future.result().status.message
