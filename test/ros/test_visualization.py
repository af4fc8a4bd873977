"""What people look at in RViz: the map's keyframes, landmarks in colour, and the configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy')

from coam_msgs.msg import KeyframeArray, RelocalizationStatus
from coam_ros.geometry.transforms import transform_points
from coam_ros.nodes import interfaces, qos
from coam_ros.nodes.conversions import transform_from_pose
from coam_ros.nodes.images import decode_image
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from ros_harness import CAMERA, wait_until
from sensor_msgs.msg import Image, PointCloud2
import yaml

RVIZ = Path(__file__).resolve().parents[2] / 'rviz' / 'coam.rviz'


def send_until(robot, image, listener):
    """Send an image until something is made of it: nothing is, before who listens is known."""
    for _ in range(5):
        status = robot.send(image)
        if listener.messages:
            break
    return status, listener.wait_for()


def read_cloud(cloud):
    """Return points (N, 3) and colours (N, 3) of 0 to 255, as RViz reads them."""
    rows = np.frombuffer(bytes(cloud.data), np.uint8).reshape(cloud.width, cloud.point_step)
    fields = {field.name: rows[:, field.offset : field.offset + 4] for field in cloud.fields}
    points = np.column_stack([fields[axis].copy().view('<f4') for axis in 'xyz'])
    return points, fields['rgb'][:, 2::-1]


def test_debug_image_is_drawn_for_subscribers(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    pictures = robot.listen(Image, 'debug_image', qos.sensor_data())
    image = robot.image(scene.view(0.3)[0])
    _, picture = send_until(robot, image, pictures)
    assert picture.header == image.header
    assert decode_image(picture).shape[0] == 240
    assert picture.width > 640


def test_landmarks_lie_where_the_image_shows_their_colours(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    clouds = robot.listen(PointCloud2, 'landmarks', qos.events())
    pixels, T_map_camera = scene.view(0.3)
    image = robot.image(pixels)
    status, cloud = send_until(robot, image, clouds)
    assert (cloud.header.stamp, cloud.header.frame_id) == (image.header.stamp, 'map')
    assert cloud.width == status.num_inliers
    points, colours = read_cloud(cloud)
    # Their 3D comes from the keyframes, their colours from the image: the true camera joins them.
    seen = CAMERA.project(transform_points(np.linalg.inv(T_map_camera), points))
    columns, rows = np.clip(seen.round().astype(int), 0, (CAMERA.width - 1, CAMERA.height - 1)).T
    differences = np.abs(pixels[rows, columns].astype(int) - colours)
    assert np.median(differences) <= 2
    shuffled = np.roll(colours, len(colours) // 2, axis=0)
    assert np.median(np.abs(pixels[rows, columns].astype(int) - shuffled)) > 10


def test_there_are_no_landmarks_where_there_is_no_pose(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    clouds = robot.listen(PointCloud2, 'landmarks', qos.events())
    send_until(robot, robot.image(scene.view(0.3)[0]), clouds)
    lost = robot.image(scene.other_image)
    assert robot.send(lost).reason != RelocalizationStatus.NONE
    # An image later, what belongs to the one before has come: a topic keeps its order.
    good = robot.image(scene.view(0.3)[0])
    robot.send(good)
    clouds.wait_for(lambda cloud: cloud.header.stamp == good.header.stamp)
    assert lost.header.stamp not in [cloud.header.stamp for cloud in clouds.messages]


def test_keyframe_poses_follow_the_map(robot, scene, keyframes_topic):
    robot.start_matcher(map_path=str(scene.map_path))
    shown = robot.listen(PoseArray, 'keyframe_poses', qos.latched())
    poses = shown.wait_for().poses
    for pose, keyframe in zip(poses, scene.keyframes, strict=True):
        np.testing.assert_allclose(transform_from_pose(pose), keyframe.T_map_camera, atol=1e-9)
    keyframes_topic.publish(KeyframeArray(removed_ids=[3], num_parts=1))
    shown.wait_for(lambda message: len(message.poses) == 7)
    late = robot.listen(PoseArray, 'keyframe_poses', qos.latched())
    assert len(late.wait_for().poses) == 7
    # What has not changed is not sent again, while the node's timers go round.
    count = len(shown.messages)
    reports = robot.listen(DiagnosticArray, '/diagnostics', qos.events())
    wait_until(lambda: len(reports.messages) >= 3)
    assert len(shown.messages) == count


def test_rviz_shows_what_the_matcher_publishes():
    manager = yaml.safe_load(RVIZ.read_text())['Visualization Manager']
    displays = [display for display in manager['Displays'] if 'Topic' in display]
    classes = {
        'Image': interfaces.DEBUG_IMAGE,
        'PointCloud2': interfaces.LANDMARKS,
        'PoseArray': interfaces.KEYFRAME_POSES,
        'PoseWithCovariance': interfaces.POSE,
    }
    assert len(displays) == len(classes)
    for display in displays:
        package, name = display['Class'].split('/')
        topic = classes[name]
        assert package == 'rviz_default_plugins'
        assert display['Topic']['Value'] == f'/coam/{topic.name}'
        assert display['Topic']['Reliability Policy'] == 'Reliable'
        is_kept = topic.profile().durability == qos.latched().durability
        wanted = 'Transient Local' if is_kept else 'Volatile'
        assert display['Topic']['Durability Policy'] == wanted
    (tool,) = [tool for tool in manager['Tools'] if tool['Class'].endswith('/SetInitialPose')]
    assert tool['Topic']['Value'] == f'/coam/{interfaces.INITIAL_POSE.name}'
