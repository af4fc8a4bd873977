"""Whatever comes in: a message that says what to do, and the next good image is localized."""

from __future__ import annotations

from array import array
from dataclasses import replace
import json
import shutil

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from coam_msgs.msg import KeyframeArray, RelocalizationStatus
from coam_msgs.srv import LoadMap, Relocalize, SaveMap
from coam_ros.inference import default_model_directory
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import load_map
from coam_ros.nodes import qos
from coam_ros.nodes.conversions import info_from_camera, keyframe_to_message
from coam_ros.nodes.map_messages import map_to_messages, split_map
from coam_ros.nodes.map_server_node import MapServerNode
from coam_ros.nodes.matcher_node import MatcherNode
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_harness import CAMERA, log_of_nodes, wait_until

Status = RelocalizationStatus


def assert_localizes(robot, scene):
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == Status.NONE, status.message


# ---- the camera


@pytest.mark.parametrize(
    ('fields', 'reason', 'words'),
    [
        ({'width': 0, 'height': 0, 'step': 0, 'data': array('B')}, Status.BAD_IMAGE, '0 x 0 px'),
        ({'encoding': 'rgb9'}, Status.BAD_IMAGE, "'rgb9'"),
        ({'data': array('B', bytes(1000))}, Status.BAD_IMAGE, '1000 bytes'),
        ({'step': 959}, Status.BAD_IMAGE, 'step is 959'),
        ({'step': 961}, Status.BAD_IMAGE, 'step'),
        ({'encoding': 'mono8', 'width': 960}, Status.BAD_CALIBRATION, '960 x 240 px'),
    ],
)
def test_broken_image(running_robot, scene, fields, reason, words):
    image = running_robot.image(scene.view(0.3)[0])
    for name, value in fields.items():
        setattr(image, name, value)
    status = running_robot.send(image)
    assert (status.reason, status.num_matches) == (reason, 0)
    assert words in status.message
    assert not running_robot.poses.messages
    assert_localizes(running_robot, scene)


@pytest.mark.parametrize('stamp', [Time(), Time(sec=-5, nanosec=1)])
def test_image_that_says_not_when_it_was_taken(running_robot, scene, stamp):
    assert_localizes(running_robot, scene)
    running_robot.forget_messages()
    image = running_robot.image(scene.view(0.3)[0])
    image.header.stamp = stamp
    status = running_robot.send(image)
    assert (status.reason, status.state) == (Status.BAD_IMAGE, Status.LOCALIZED)
    assert 'stamp' in status.message
    assert not running_robot.poses.messages
    assert_localizes(running_robot, scene)


def test_image_before_any_camera_info(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    with log_of_nodes() as read_log:
        status = robot.send_image_only(robot.image(scene.view(0.3)[0]))
        wait_until(lambda: 'remap camera_info' in read_log())
    assert status.reason == Status.NO_CAMERA_INFO
    assert 'remap camera_info' in status.message
    assert_localizes(robot, scene)


@pytest.mark.parametrize(
    ('camera_fields', 'info_fields', 'words'),
    [
        ({}, {'k': [0.0] * 9}, 'k[0] = 0'),
        ({'width': 640, 'height': 480}, {}, '640 x 480 px'),
        ({}, {'distortion_model': 'magic', 'd': [0.1] * 5}, "'magic'"),
    ],
)
def test_broken_camera_info(running_robot, scene, camera_fields, info_fields, words):
    image = running_robot.image(scene.view(0.3)[0])
    info = info_from_camera(replace(CAMERA, **camera_fields), image.header)
    for name, value in info_fields.items():
        setattr(info, name, value)
    status = running_robot.send(image, info)
    assert status.reason == Status.BAD_CALIBRATION
    assert words in status.message
    assert_localizes(running_robot, scene)


def test_nothing_in_common_with_the_map(running_robot, scene):
    for pixels in (scene.other_image, np.zeros((240, 320, 3), np.uint8)):
        status = running_robot.send(running_robot.image(pixels))
        assert status.reason not in (Status.NONE, Status.ENGINE_ERROR), status.message
        assert not running_robot.poses.messages
    assert_localizes(running_robot, scene)


# ---- what is asked of services


@pytest.mark.parametrize('timeout_s', [-1.0, float('nan'), float('inf'), 1e30])
def test_impossible_timeout(running_robot, scene, timeout_s):
    answer = running_robot.call(Relocalize, 'relocalize', timeout_s=timeout_s)
    assert not answer.success
    assert answer.status.reason == Status.BAD_REQUEST
    assert 'timeout_s' in answer.status.message
    assert_localizes(running_robot, scene)


@pytest.mark.parametrize('path', ['', '~nobody_of_this_name/map', '/dev/null'])
def test_impossible_path(running_robot, scene, path):
    for service, name in ((LoadMap, 'load_map'), (SaveMap, 'save_map')):
        answer = running_robot.call(service, name, path=path)
        assert not answer.success
        assert answer.message
    assert_localizes(running_robot, scene)


# ---- the map on disk


def spoil_version(path):
    header = json.loads((path / 'map.json').read_text())
    header['format_version'] = 99
    (path / 'map.json').write_text(json.dumps(header))


def spoil_pose(path):
    header = json.loads((path / 'map.json').read_text())
    header['keyframes'][2]['T_map_camera'][0][3] = float('nan')
    (path / 'map.json').write_text(json.dumps(header))


def empty(path):
    header = json.loads((path / 'map.json').read_text())
    header['keyframes'] = []
    (path / 'map.json').write_text(json.dumps(header))


def lose_image(path):
    next((path / 'images').iterdir()).unlink()


def truncate_depth(path):
    file = next((path / 'depth').iterdir())
    file.write_bytes(file.read_bytes()[:100])


SPOILERS = [
    (spoil_version, 'version 99'),
    (spoil_pose, 'T_map_camera'),
    (empty, 'empty'),
    (lose_image, 'images/'),
    (truncate_depth, 'depth/'),
]


@pytest.mark.parametrize(('spoil', 'words'), SPOILERS)
def test_broken_map_is_refused_by_name_and_the_former_one_stays(
    running_robot, scene, tmp_path, spoil, words
):
    path = tmp_path / 'broken'
    shutil.copytree(scene.map_path, path)
    spoil(path)
    answer = running_robot.call(LoadMap, 'load_map', path=str(path))
    assert not answer.success
    assert words in answer.message
    assert str(path) in answer.message
    assert_localizes(running_robot, scene)


@pytest.mark.parametrize('node_class', [MatcherNode, MapServerNode])
def test_node_with_a_broken_map_stays_up_unconfigured_and_says_why(
    robot, scene, tmp_path, node_class
):
    path = tmp_path / 'broken'
    shutil.copytree(scene.map_path, path)
    spoil_version(path)
    node = robot.start(node_class, map_path=str(path))
    wait_until(lambda: node.last_error)
    assert 'version 99' in node.last_error
    assert node.lifecycle_label == 'unconfigured'


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda path: (path / 'encoder.onnx').write_bytes(b'none'), 'encoder.onnx'),
        (lambda path: (path / 'manifest.json').write_text('{}'), 'manifest'),
        (lambda path: (path / 'pair_matcher.onnx').unlink(), 'pair_matcher.onnx'),
        (lambda path: shutil.rmtree(path), 'manifest.json'),
    ],
)
def test_engine_that_does_not_fit_is_refused_by_name(robot, scene, tmp_path, spoil, words):
    path = tmp_path / 'model'
    shutil.copytree(default_model_directory(), path)
    spoil(path)
    node = robot.start(MatcherNode, map_path=str(scene.map_path), model_file_path=str(path))
    wait_until(lambda: node.last_error)
    assert words in node.last_error
    assert node.lifecycle_label == 'unconfigured'


# ---- the map by topic


def test_empty_map_by_topic(robot, scene, keyframes_topic):
    robot.start_matcher()
    keyframes_topic.publish(KeyframeArray(map_id='empty', num_parts=1))
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == Status.NO_MAP
    assert 'load_map' in status.message
    assert robot.call(LoadMap, 'load_map', path=str(scene.map_path)).success
    assert_localizes(robot, scene)


def test_keyframe_sent_twice_is_one(robot, scene, keyframes_topic):
    node = robot.start_matcher()
    keyframe_map = load_map(scene.map_path)
    (message,) = map_to_messages(keyframe_map, split_map(keyframe_map, 10**9), Time())
    keyframes_topic.publish(message)
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 8)
    assert_localizes(robot, scene)
    revision = node._map_receiver.keyframe_map.revision
    keyframes_topic.publish(message)
    # A later message shows that the repeated one has been worked on.
    keyframes_topic.publish(KeyframeArray(map_id=message.map_id, num_parts=1, removed_ids=[4]))
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 7)
    assert node._map_receiver.keyframe_map.revision == revision + 1
    assert_localizes(robot, scene)


def test_keyframes_removed_while_they_are_matched(robot, scene, keyframes_topic):
    node = robot.start_matcher()
    keyframe_map = load_map(scene.map_path)
    whole = next(map_to_messages(keyframe_map, split_map(keyframe_map, 10**9), Time()))
    keyframes_topic.publish(whole)
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 8)
    assert_localizes(robot, scene)
    everything = list(range(8))
    # Adding and removing all of it all the time, images meet every state of the map.
    for _ in range(4):
        keyframes_topic.publish(
            KeyframeArray(map_id=whole.map_id, num_parts=1, removed_ids=everything)
        )
        keyframes_topic.publish(whole)
        status = robot.send(robot.image(scene.view(0.3)[0]))
        assert status.reason != Status.ENGINE_ERROR, status.message
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 8)
    assert_localizes(robot, scene)


def test_damaged_keyframe_is_left_out_and_the_rest_is_used(robot, scene, keyframes_topic):
    node = robot.start_matcher()
    messages = [keyframe_to_message(keyframe) for keyframe in scene.keyframes]
    messages[4].image = messages[4].image[:700]
    keyframes_topic.publish(KeyframeArray(map_id='damaged', num_parts=1, keyframes=messages))
    wait_until(lambda: node._map_receiver.num_refused == 1)
    assert_localizes(robot, scene)
    assert robot.statuses.wait_for().num_keyframes == 7


def test_described_keyframe_that_does_not_decode_leaves_the_map(robot, scene, keyframes_topic):
    node = robot.start_matcher()
    (message,) = map_to_messages(KeyframeMap(scene.keyframes), [list(scene.keyframes)], Time())
    keyframes_topic.publish(message)
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 8)
    keyframe_map = node._map_receiver.keyframe_map
    # The tables of the JPEG's code are gone; only a decoder sees that.
    jpeg = scene.keyframes[0].image
    table = jpeg.index(b'\xff\xc4') + 4
    broken = replace(scene.keyframes[0], image=jpeg[:table] + bytes(20) + jpeg[table + 20 :])
    keyframe_map.add(broken)
    for angle_rad in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        status = robot.send(robot.image(scene.view(angle_rad)[0]))
        assert status.reason != Status.ENGINE_ERROR, status.message
    assert keyframe_map.get(broken.id) is None
    assert len(keyframe_map) == 7


def test_map_without_descriptors_is_described_by_the_node(robot, scene, keyframes_topic):
    node = robot.start_matcher()
    bare = KeyframeMap([replace(k, global_descriptor=None) for k in scene.keyframes])
    (message,) = map_to_messages(bare, split_map(bare, 10**9), Time())
    keyframes_topic.publish(message)
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 8)
    # Each image brings it on by a second of work at most.
    for _ in range(8):
        robot.send(robot.image(scene.view(0.3)[0]))
        if all(k.global_descriptor is not None for k in node._map_receiver.keyframe_map):
            break
    assert_localizes(robot, scene)
    assert node._map_receiver.keyframe_map.descriptor_model_id


# ---- faults of the program itself


def test_engine_that_fails_is_reported_and_the_node_goes_on(robot, scene):
    diagnostics = robot.listen(DiagnosticArray, '/diagnostics', qos.events())
    matcher = robot.start_matcher(map_path=str(scene.map_path), backend='onnxruntime')
    # The real engine, closed under the worker: every run of it fails from now on.
    engine = matcher._matcher
    encoder = engine._model._encoder
    session, encoder._session = encoder._session, None
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == Status.ENGINE_ERROR
    assert 'closed' in status.message
    diagnostics.wait_for(
        lambda array: DiagnosticStatus.ERROR in [report.level for report in array.status]
    )
    encoder._session = session
    assert_localizes(robot, scene)
