"""Configuring, activating and their opposites, by the services that managers use."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip('rclpy')

from coam_msgs.msg import RelocalizationStatus
from coam_msgs.srv import LoadMap, Relocalize
from coam_ros.mapping.storage import load_map
from coam_ros.nodes import qos
from coam_ros.nodes.conversions import info_from_camera, pose_from_transform
from coam_ros.nodes.map_server_node import MapServerNode
from coam_ros.nodes.matcher_node import MatcherNode
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from ros_harness import CAMERA, DEADLINE_S, log_of_nodes, wait_until
from std_msgs.msg import Header

ROOT = Path(__file__).parents[2]


def test_matcher_goes_through_its_life_twice(robot, scene):
    node = robot.start(MatcherNode, map_path=str(scene.map_path), autostart=False)
    for _ in range(2):
        assert robot.state_of('matcher') == 'unconfigured'
        assert robot.change_state('matcher', 'configure')
        answer = robot.call(Relocalize, 'relocalize')
        assert answer.status.reason == RelocalizationStatus.NOT_ACTIVE
        assert 'not active' in answer.status.message
        for _ in range(2):
            assert robot.change_state('matcher', 'activate')
            status = robot.send_image_only(robot.image(scene.view(0.3)[0]))
            assert status.reason == RelocalizationStatus.NO_CAMERA_INFO
            assert status.state == RelocalizationStatus.SEARCHING
            status = robot.send(robot.image(scene.view(0.3)[0]))
            assert status.reason == RelocalizationStatus.NONE, status.message
            assert status.dropped_frames == 0
            node._T_map_odom = np.eye(4)
            assert robot.change_state('matcher', 'deactivate')
            assert node._T_map_odom is None
            answer = robot.call(Relocalize, 'relocalize')
            assert answer.status.state == RelocalizationStatus.SEARCHING
        assert node.count_subscribers('/coam/image') == 0
        model = node._matcher
        assert robot.change_state('matcher', 'cleanup')
        assert node.count_subscribers('/coam/keyframes') == 0
        assert node._matcher is None
        assert node._localizer is None
        with pytest.raises(RuntimeError, match='closed'):
            model.encode(scene.other_image)
    assert robot.change_state('matcher', 'unconfigured_shutdown')


def test_a_transition_that_does_not_fit_is_refused_and_the_node_goes_on(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    words = 'The transition configure does not fit the state active and is refused; wanted one of'
    with log_of_nodes() as read_log:
        assert not robot.change_state('matcher', 'configure')
        wait_until(lambda: words in read_log())
    assert robot.state_of('matcher') == 'active'
    assert robot.send(robot.image(scene.view(0.3)[0])).reason == RelocalizationStatus.NONE
    assert robot.change_state('matcher', 'deactivate')


def test_who_waits_for_an_attempt_is_answered_when_the_node_is_deactivated(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    future = robot.call_async(Relocalize, 'relocalize', timeout_s=600.0)
    robot.call(Relocalize, 'relocalize', timeout_s=0.1)
    assert robot.change_state('matcher', 'deactivate')
    wait_until(future.done)
    assert not future.result().success
    assert future.result().status.reason == RelocalizationStatus.NOT_ACTIVE
    assert 'deactivated meanwhile' in future.result().status.message


def test_who_loads_a_map_is_told_when_the_node_is_cleaned_up_meanwhile(robot, scene, monkeypatch):
    node = robot.start_matcher(map_path=str(scene.map_path))
    has_begun, may_end = threading.Event(), threading.Event()

    def load_slowly(path, load=node._load_map):
        has_begun.set()
        may_end.wait(DEADLINE_S)
        return load(path)

    monkeypatch.setattr(node, '_load_map', load_slowly)
    future = robot.call_async(LoadMap, 'load_map', path=str(scene.map_path))
    assert has_begun.wait(DEADLINE_S)
    assert robot.change_state('matcher', 'deactivate')
    assert robot.change_state('matcher', 'cleanup')
    may_end.set()
    wait_until(future.done)
    assert not future.result().success
    assert 'cleaned up meanwhile' in future.result().message


def test_failed_configuration_can_be_tried_again(robot, scene, tmp_path):
    path = tmp_path / 'map'
    diagnostics = robot.listen(DiagnosticArray, '/diagnostics', qos.events())
    node = robot.start(MatcherNode, map_path=str(path), autostart=False)
    assert not robot.change_state('matcher', 'configure')
    assert robot.state_of('matcher') == 'unconfigured'
    assert node._matcher is None
    reported = (DiagnosticStatus.ERROR, node.last_error)
    diagnostics.wait_for(
        lambda array: reported in [(status.level, status.message) for status in array.status]
    )
    path.symlink_to(scene.map_path)
    assert robot.change_state('matcher', 'configure')
    assert node.last_error == ''
    assert robot.change_state('matcher', 'activate')


def test_after_a_fault_of_the_program_the_node_is_unconfigured_and_can_be_tried_again(
    robot, scene, monkeypatch
):
    node = robot.start(MatcherNode, map_path=str(scene.map_path), autostart=False)
    assert robot.change_state('matcher', 'configure')
    with monkeypatch.context() as patch:
        patch.setattr(node, '_start_work', lambda: 1 / 0)
        assert not robot.change_state('matcher', 'activate')
    assert robot.state_of('matcher') == node.lifecycle_label == 'unconfigured'
    assert node._matcher is None
    assert not node._outputs.status.is_activated
    assert robot.change_state('matcher', 'configure')
    assert robot.change_state('matcher', 'activate')


def test_a_fault_while_the_node_stops_is_logged_and_the_rest_is_freed(robot, scene, monkeypatch):
    node = robot.start_matcher(map_path=str(scene.map_path))
    with monkeypatch.context() as patch, log_of_nodes() as read_log:
        patch.setattr(node, 'deactivate', lambda: 1 / 0)
        assert not robot.change_state('matcher', 'deactivate')
        wait_until(lambda: 'Cannot deactivate:\nTraceback' in read_log())
    assert 'division by zero' in node.last_error
    assert robot.state_of('matcher') == node.lifecycle_label == 'finalized'
    assert node._matcher is None


def test_a_node_that_cannot_be_cleaned_up_at_first_says_so_and_can_be_tried_again(
    robot, scene, monkeypatch
):
    node = robot.start(MatcherNode, map_path=str(scene.map_path), autostart=False)
    assert robot.change_state('matcher', 'configure')

    def fail_once(cleanup=node.cleanup):
        monkeypatch.setattr(node, 'cleanup', cleanup)
        raise RuntimeError('the GPU is busy')

    monkeypatch.setattr(node, 'cleanup', fail_once)
    assert not robot.change_state('matcher', 'cleanup')
    assert node.last_error == 'Cannot clean up: the GPU is busy'
    assert robot.state_of('matcher') == node.lifecycle_label == 'unconfigured'
    assert node._matcher is None
    assert robot.change_state('matcher', 'configure')


def test_what_the_core_logs_is_told_once_whichever_node_of_a_process_is_left(robot):
    core = logging.getLogger('coam_ros.matching')
    former_level = core.getEffectiveLevel()
    eldest = robot.start(MatcherNode, autostart=False)
    left = robot.start(MapServerNode, autostart=False)
    for word, gone in (('with both', eldest), ('with the other', left)):
        with log_of_nodes() as read_log:
            core.warning(word)
            assert read_log().count(word) == 1
        robot.stop_node(gone)
    assert core.getEffectiveLevel() == former_level


def test_publishers_are_on_only_while_the_node_is_active(robot, scene, monkeypatch):
    node = robot.start(MatcherNode, map_path=str(scene.map_path), autostart=False)
    assert robot.change_state('matcher', 'configure')
    with monkeypatch.context() as patch:
        patch.setattr(node, '_start_work', lambda: int('none'))
        assert not robot.change_state('matcher', 'activate')
    assert robot.state_of('matcher') == 'inactive'
    assert not node._outputs.status.is_activated
    assert robot.change_state('matcher', 'activate')
    assert node._outputs.status.is_activated
    assert robot.change_state('matcher', 'active_shutdown')
    assert not node._outputs.status.is_activated


@pytest.mark.skipif(importlib.util.find_spec('tf2_ros') is not None, reason='tf2_ros is installed')
@pytest.mark.parametrize('parameters', [{'base_frame': 'base_link'}, {'publish_tf': True}])
def test_transforms_without_tf2_ros_fail_with_the_remedy(robot, scene, parameters):
    node = robot.start(MatcherNode, map_path=str(scene.map_path), **parameters)
    wait_until(lambda: node.last_error)
    assert 'tf2-ros-py' in node.last_error
    assert 'base_frame empty' in node.last_error


def test_map_server_without_a_map_path_says_so(robot):
    node = robot.start(MapServerNode)
    wait_until(lambda: node.last_error)
    assert 'map_path is empty' in node.last_error


def start_process(name, *arguments, before=''):
    code = f'{before}\nfrom coam_ros.nodes.{name}_node import main; main()'
    words = [sys.executable, '-c', code, '--ros-args', '-r', '__ns:=/coam', *arguments]
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def play_until_localized(robot, pixels):
    """Send an image a second, as a camera does whoever listens."""
    for _ in range(60):
        image = robot.image(pixels)
        robot.infos.publish(info_from_camera(CAMERA, image.header))
        robot.images.publish(image)
        status = robot.statuses.find(lambda s: s.reason == RelocalizationStatus.NONE, 1.0)
        if status is not None:
            return status
    raise AssertionError(f'not localized, last {robot.statuses.messages[-1:]}')


def test_processes_take_the_parameter_file_localize_and_end_on_interrupt(robot, scene):
    arguments = ('--params-file', str(ROOT / 'config' / 'coam.yaml'))
    server = start_process('map_server', *arguments, '-p', f'map_path:={scene.map_path}')
    matcher = start_process('matcher', *arguments, '-p', 'min_inlier:=50')
    try:
        status = play_until_localized(robot, scene.view(0.3)[0])
        assert status.num_keyframes == 8
    finally:
        outputs = []
        for process in (matcher, server):
            process.send_signal(signal.SIGINT)
            outputs.append(process.communicate(timeout=DEADLINE_S)[0])
    assert [matcher.returncode, server.returncode] == [0, 0], outputs
    assert 'Traceback' not in ''.join(outputs)
    assert "no parameter 'min_inlier'; did you mean 'min_inliers'?" in outputs[0]
    assert 'searching -> localized' in outputs[0]


# As of the terminal and of launch, which both send one.
INTERRUPTED_AGAIN_WHILE_IT_SAVES = """
import os, signal
from coam_ros.nodes.recorded_map import RecordedMap

save = RecordedMap.save

def interrupted_save(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
    return save(*arguments, **options)

RecordedMap.save = interrupted_save
"""


def test_recorder_that_is_interrupted_twice_saves_and_says_so(robot, scene, tmp_path):
    parameters = {
        'map_path': tmp_path / 'map',
        'pose_source': 'topic',
        'uses_depth': 'false',
        'save_period_s': '0.0',
    }
    words = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
    recorder = start_process('map_recorder', *words, before=INTERRUPTED_AGAIN_WHILE_IT_SAVES)
    poses = robot.talk(PoseStamped, 'camera_pose', qos.events(1))
    lines, is_kept = [], threading.Event()

    def read():
        for line in recorder.stdout:
            lines.append(line)
            if 'keyframes=1 position=' in line:
                is_kept.set()

    reader = threading.Thread(target=read)
    reader.start()
    pixels, T_map_camera = scene.view(0.3)
    try:
        # An image or a pose may be lost while the node gets to know who publishes.
        for _ in range(round(2 * DEADLINE_S)):
            image = robot.image(pixels)
            robot.infos.publish(info_from_camera(CAMERA, image.header))
            pose = pose_from_transform(T_map_camera)
            header = Header(stamp=image.header.stamp, frame_id='map')
            poses.publish(PoseStamped(header=header, pose=pose))
            robot.images.publish(image)
            if is_kept.wait(0.5):
                break
        recorder.send_signal(signal.SIGINT)
        recorder.wait(DEADLINE_S)
    finally:
        recorder.kill()
        reader.join(DEADLINE_S)
    output = ''.join(lines)
    assert recorder.returncode == 0, output
    assert f'1 keyframes in {tmp_path}/map' in output
    assert 'Failed to publish' not in output
    assert 'Traceback' not in output
    assert len(load_map(tmp_path / 'map')) == 1


LOST_DEVICE = """
from coam_ros.inference import DeviceLostError
from coam_ros.matching import CoamMatcher

def encode(matcher, image):
    raise DeviceLostError('the GPU fell off the bus')

CoamMatcher.encode = encode
"""


def test_process_whose_gpu_is_lost_says_so_and_ends_to_be_started_again(robot, scene):
    matcher = start_process('matcher', '-p', f'map_path:={scene.map_path}', before=LOST_DEVICE)
    try:
        for _ in range(60):
            image = robot.image(scene.view(0.3)[0])
            robot.infos.publish(info_from_camera(CAMERA, image.header))
            robot.images.publish(image)
            if robot.statuses.find(lambda s: 'fell off the bus' in s.message, 1.0):
                break
        log, _ = matcher.communicate(timeout=DEADLINE_S)
    finally:
        matcher.kill()
    assert 'to be started again (use_respawn): the GPU fell off the bus' in log
    assert matcher.returncode == 1, log


STOPPED_WHILE_MADE = """
import os, signal, time
import rclpy
from coam_ros.nodes import managed_node

init = rclpy.init

def stopped_init(**options):
    init(**options)
    os.kill(os.getpid(), signal.SIGTERM)
    while rclpy.ok():
        time.sleep(0.01)

managed_node.rclpy.init = stopped_init
"""
INTERRUPTED_WHILE_MADE = """
from coam_ros.nodes import managed_node

def interrupt(*arguments):
    raise KeyboardInterrupt

managed_node.declare_parameters = interrupt
"""
STOPPED_WHILE_CONFIGURED = """
import os, signal, time
import rclpy
from coam_ros.nodes.map_server_node import MapServerNode

def configure(node):
    os.kill(os.getpid(), signal.SIGTERM)
    while rclpy.ok():
        time.sleep(0.01)

MapServerNode.configure = configure
"""


LOST_INTERRUPT = """
import os, signal
from coam_ros.nodes import managed_node

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

executor = managed_node.SingleThreadedExecutor
spin_once = executor.spin_once

def drop_and_spin(*arguments, **options):
    Dropped()
    spin_once(*arguments, **options)

executor.spin_once = drop_and_spin
"""


def test_process_ends_where_python_drops_the_interrupt(ros):
    process = start_process('map_server', before=LOST_INTERRUPT)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, output
    assert 'Exception ignored in' in output


@pytest.mark.parametrize(
    'before', [STOPPED_WHILE_MADE, INTERRUPTED_WHILE_MADE, STOPPED_WHILE_CONFIGURED]
)
def test_process_that_is_told_to_stop_while_it_starts_ends_quietly(ros, before):
    process = start_process('map_server', before=before)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, output
    assert 'Traceback' not in output


def test_process_with_a_wrong_parameter_ends_with_one_clear_line(ros):
    process = start_process('matcher', '-p', 'max_rate_hz:=-3.0')
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert 'max_rate_hz is -3.0; wanted 0 .. 1000' in output
    assert 'Traceback' not in output
