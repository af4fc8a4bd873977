from __future__ import annotations

import logging

import pytest

pytest.importorskip('rclpy')

from coam_msgs.msg import KeyframeArray, RelocalizationStatus
from coam_msgs.srv import LoadMap
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import save_map
from coam_ros.nodes import qos
from map_samples import make_keyframe
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_harness import log_of_nodes, wait_until


def collect_map(listener):
    listener.wait_for()
    num_parts = listener.messages[0].num_parts
    wait_until(lambda: len(listener.messages) == num_parts)
    return listener.messages


def test_late_subscriber_gets_the_whole_map_in_bounded_messages(robot, scene):
    node = robot.start_map_server(map_path=str(scene.map_path), max_message_mb=0.3)
    wait_until(lambda: node.lifecycle_label == 'active')
    messages = collect_map(robot.listen(KeyframeArray, 'keyframes', qos.every_latched()))
    assert 1 < len(messages) < 8
    assert sorted(k.id for message in messages for k in message.keyframes) == list(range(8))
    assert all(m.descriptor_model_id == messages[0].descriptor_model_id != '' for m in messages)


def test_map_is_there_only_while_the_server_is_active(robot, scene):
    node = robot.start_map_server(map_path=str(scene.map_path), autostart=False)
    answer = robot.call(LoadMap, 'map_server/load_map', path=str(scene.map_path))
    assert not answer.success
    assert 'not configured' in answer.message
    assert robot.change_state('map_server', 'configure')
    assert robot.call(LoadMap, 'map_server/load_map', path=str(scene.map_path)).success
    assert node.count_publishers('/coam/keyframes') == 0
    assert robot.change_state('map_server', 'activate')
    assert node.count_publishers('/coam/keyframes') == 1
    assert robot.change_state('map_server', 'deactivate')
    assert node.count_publishers('/coam/keyframes') == 0


def test_matcher_localizes_in_the_map_of_the_server_whoever_starts_first(robot, scene):
    matcher = robot.start_matcher()
    robot.start_map_server(map_path=str(scene.map_path), max_message_mb=0.1)
    wait_until(lambda: len(matcher._map_receiver.keyframe_map) == 8)
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == RelocalizationStatus.NONE, status.message
    robot.stop_node(matcher)
    matcher = robot.start_matcher()
    wait_until(lambda: len(matcher._map_receiver.keyframe_map) == 8)
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == RelocalizationStatus.NONE, status.message


def test_large_map_arrives_complete(robot, tmp_path):
    # 40 MiB: far more than a reader of depth one or ten, or a shared memory segment, would hold.
    path = tmp_path / 'large'
    padded = make_keyframe().image + bytes(200_000)
    save_map(KeyframeMap([make_keyframe(id=i, image=padded) for i in range(200)]), path)
    matcher = robot.start_matcher()
    robot.start_map_server(map_path=str(path), max_message_mb=1.0)
    wait_until(lambda: len(matcher._map_receiver.keyframe_map) == 200)


def test_loading_another_map_replaces_the_former_for_all(robot, scene, tmp_path):
    other_path = tmp_path / 'other'
    save_map(KeyframeMap([make_keyframe(id=70)], map_id='other'), other_path)
    node = robot.start_map_server(map_path=str(scene.map_path))
    matcher = robot.start_matcher()
    wait_until(lambda: len(matcher._map_receiver.keyframe_map) == 8)
    answer = robot.call(LoadMap, 'map_server/load_map', path=str(other_path))
    assert (answer.success, answer.num_keyframes) == (True, 1)
    wait_until(lambda: matcher._map_receiver.keyframe_map.map_id == 'other')
    (message,) = collect_map(robot.listen(KeyframeArray, 'keyframes', qos.every_latched()))
    assert message.map_id == 'other'
    failed = robot.call(LoadMap, 'map_server/load_map', path=str(tmp_path / 'nothing'))
    assert (failed.success, failed.num_keyframes) == (False, 1)
    assert node.lifecycle_label == 'active'


def test_an_earlier_state_of_a_map_replaces_it_too(robot, tmp_path):
    later, earlier = tmp_path / 'later', tmp_path / 'earlier'
    save_map(KeyframeMap([make_keyframe(id=i) for i in range(5)], map_id='one'), later)
    save_map(KeyframeMap([make_keyframe(id=i) for i in (1, 2, 9)], map_id='one'), earlier)
    robot.start_map_server(map_path=str(later))
    matcher = robot.start_matcher()

    def ids():
        return {keyframe.id for keyframe in matcher._map_receiver.keyframe_map}

    wait_until(lambda: ids() == {*range(5)})
    assert robot.call(LoadMap, 'map_server/load_map', path=str(earlier)).num_keyframes == 3
    wait_until(lambda: ids() == {1, 2, 9})
    assert robot.call(LoadMap, 'map_server/load_map', path=str(later)).num_keyframes == 5
    wait_until(lambda: ids() == {*range(5)})


def test_what_the_core_says_is_in_the_log_of_the_node(robot, scene):
    logger = logging.getLogger('coam_ros')
    level = logger.level
    nodes = [robot.start_matcher()]
    with log_of_nodes() as read_log:
        nodes.append(robot.start_map_server(map_path=str(scene.map_path)))
        wait_until(lambda: ' is in use now' in read_log())
        assert '[INFO]' in next(s for s in read_log().splitlines() if ' is in use now' in s)
    for node in nodes:
        robot.stop_node(node)
    assert logger.level == level


def test_publisher_with_another_qos_is_named_in_the_log(robot, scene):
    """A map publisher that is best effort never reaches the matcher: the log has to say so."""
    robot.start_matcher()
    unreliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    with log_of_nodes() as read_log:
        robot.node.create_publisher(KeyframeArray, 'keyframes', unreliable)
        wait_until(lambda: "on topic 'keyframes', offering incompatible QoS" in read_log())
