"""Configuring, activating and their opposites, by the services that managers use."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

from coam_msgs.msg import RelocalizationStatus
from coam_msgs.srv import Relocalize
from coam_ros.nodes.conversions import info_from_camera
from coam_ros.nodes.map_server_node import MapServerNode
from coam_ros.nodes.matcher_node import MatcherNode
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from ros_harness import CAMERA, DEADLINE_S, wait_until

ROOT = Path(__file__).parents[2]


def change(robot, name, transition):
    request = Transition(id=getattr(Transition, f'TRANSITION_{transition.upper()}'))
    return robot.call(ChangeState, f'{name}/change_state', transition=request).success


def state_of(robot, name):
    return robot.call(GetState, f'{name}/get_state').current_state.label


def test_matcher_goes_through_its_life_twice(robot, scene):
    node = robot.start(MatcherNode, map_path=str(scene.map_path), autostart=False)
    for _ in range(2):
        assert state_of(robot, 'matcher') == 'unconfigured'
        assert change(robot, 'matcher', 'configure')
        answer = robot.call(Relocalize, 'relocalize')
        assert answer.status.reason == RelocalizationStatus.NOT_ACTIVE
        assert 'not active' in answer.status.message
        for _ in range(2):
            assert change(robot, 'matcher', 'activate')
            status = robot.send(robot.image(scene.view(0.3)[0]))
            assert status.reason == RelocalizationStatus.NONE, status.message
            assert status.dropped_frames == 0
            assert change(robot, 'matcher', 'deactivate')
        assert node.count_subscribers('/coam/image') == 0
        assert change(robot, 'matcher', 'cleanup')
        assert node._matcher is None
        assert node._localizer is None
    assert change(robot, 'matcher', 'unconfigured_shutdown')


def test_who_waits_for_an_attempt_is_answered_when_the_node_is_deactivated(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    future = robot.call_async(Relocalize, 'relocalize', timeout_s=600.0)
    robot.call(Relocalize, 'relocalize', timeout_s=0.1)
    assert change(robot, 'matcher', 'deactivate')
    wait_until(future.done)
    assert not future.result().success


def test_failed_configuration_can_be_tried_again(robot, scene, tmp_path):
    path = tmp_path / 'map'
    robot.start(MatcherNode, map_path=str(path), autostart=False)
    assert not change(robot, 'matcher', 'configure')
    assert state_of(robot, 'matcher') == 'unconfigured'
    path.symlink_to(scene.map_path)
    assert change(robot, 'matcher', 'configure')
    assert change(robot, 'matcher', 'activate')


def test_after_a_fault_of_the_program_the_node_is_unconfigured_and_can_be_tried_again(
    robot, scene, monkeypatch
):
    node = robot.start(MatcherNode, map_path=str(scene.map_path), autostart=False)
    assert change(robot, 'matcher', 'configure')
    with monkeypatch.context() as patch:
        patch.setattr(node, '_start_work', lambda: 1 / 0)
        assert not change(robot, 'matcher', 'activate')
    assert state_of(robot, 'matcher') == node.lifecycle_label == 'unconfigured'
    assert node._matcher is None
    assert change(robot, 'matcher', 'configure')
    assert change(robot, 'matcher', 'activate')


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


def test_process_with_a_wrong_parameter_ends_with_one_clear_line(ros):
    process = start_process('matcher', '-p', 'max_rate_hz:=-3.0')
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert 'max_rate_hz is -3.0; wanted 0 .. 1000' in output
    assert 'Traceback' not in output
