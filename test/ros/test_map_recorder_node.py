"""The map recorder: what a robot publishes while it drives becomes a map that localizes."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import replace
import shutil
import threading

import numpy as np
import pytest

pytest.importorskip('rclpy')

from coam_msgs.msg import RelocalizationStatus
from coam_msgs.srv import SaveMap
from coam_ros.mapping.storage import load_map
from coam_ros.nodes import interfaces, map_recorder_node, qos, recorded_map
from coam_ros.nodes.conversions import (
    info_from_camera,
    pose_from_transform,
    stamp_from_seconds,
)
from coam_ros.nodes.images import encode_image
from coam_ros.nodes.map_recorder_node import _MAX_WAITING, _nearest, MapRecorderNode
from coam_ros.rendering import camera_pose
import cv2
from geometry_msgs.msg import PoseStamped
from ros_harness import CAMERA, DEADLINE_S, log_of_nodes, wait_until
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header


class Drive:
    """A robot that publishes image, depth and pose of places in the room."""

    def __init__(self, robot, scene, recorder):
        self._robot, self._scene, self._recorder = robot, scene, recorder
        self._depths = None
        if recorder.parameters.uses_depth:
            self._depths = robot.talk(Image, 'depth', qos.events(1))
        self._poses = robot.talk(PoseStamped, 'camera_pose', qos.events(1))
        self.camera = CAMERA

    def pass_by(
        self,
        angle_rad,
        *,
        x_m=1.9,
        depth='32FC1',
        frame_id='map',
        depth_frame_id=None,
        compressed=False,
    ):
        """Publish what is seen at a place; returns the true depth [m] and T_map_camera."""
        T_map_camera = camera_pose((x_m, 2.0, 1.25), angle_rad)
        pixels, depth_m = self._scene.room.render(T_map_camera, CAMERA)
        header = self._robot.header()
        pose_header = Header(stamp=header.stamp, frame_id=frame_id)
        pose = pose_from_transform(T_map_camera)
        self._poses.publish(PoseStamped(header=pose_header, pose=pose))
        self._robot.infos.publish(info_from_camera(self.camera, header))
        if self._depths is not None:
            message = depth_message(header, depth_m, depth)
            if depth_frame_id is not None:
                message.header = Header(stamp=header.stamp, frame_id=depth_frame_id)
            self._depths.publish(message)
        if compressed:
            _, data = cv2.imencode('.png', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
            self._robot.compressed_images.publish(
                CompressedImage(header=header, format='png', data=array('B', data.tobytes()))
            )
        else:
            self._robot.images.publish(encode_image(pixels, header))
        return depth_m, T_map_camera

    def wait_for(self, count):
        wait_until(lambda: len(self._recorder._map) == count)


def depth_message(header, depth_m, encoding):
    depth = {
        '32FC1': depth_m.astype('<f4'),
        '16UC1': np.round(depth_m * 1e3).astype('<u2'),
    }.get(encoding, np.zeros((*depth_m.shape, 3), np.uint8))
    return Image(
        header=header,
        height=depth.shape[0],
        width=depth.shape[1],
        encoding=encoding,
        step=depth[0].nbytes,
        data=array('B', depth.tobytes()),
    )


@pytest.fixture
def start(robot, scene, tmp_path):
    def start(**parameters):
        recorder = robot.start(
            MapRecorderNode,
            **{'map_path': str(tmp_path / 'map'), 'pose_source': 'topic', **parameters},
        )
        wait_until(lambda: recorder.lifecycle_label == 'active' or recorder.last_error)
        assert recorder.lifecycle_label == 'active', recorder.last_error
        return recorder, Drive(robot, scene, recorder)

    return start


def test_recorded_map_holds_what_was_seen_and_localizes(robot, scene, start, tmp_path):
    recorder, drive = start()
    truth = []
    for number in range(8):
        truth.append(drive.pass_by(number * np.pi / 4, depth='16UC1' if number % 2 else '32FC1'))
        drive.wait_for(number + 1)
    robot.stop_node(recorder)
    recorded = list(load_map(tmp_path / 'map'))
    assert [keyframe.id for keyframe in recorded] == list(range(8))
    for keyframe, (depth_m, T_map_camera) in zip(recorded, truth, strict=True):
        np.testing.assert_allclose(keyframe.T_map_camera, T_map_camera, atol=1e-9)
        np.testing.assert_allclose(keyframe.decode_depth_m(), depth_m, atol=6e-4)
    assert [keyframe.stamp_s for keyframe in recorded] == [1000.5 + i / 2 for i in range(8)]
    robot.start_matcher(map_path=str(tmp_path / 'map'))
    # Each image brings the descriptors on by a second of work at most.
    reasons = [robot.send(robot.image(scene.view(0.3)[0])).reason for _ in range(8)]
    assert reasons[-1] == RelocalizationStatus.NONE


def test_a_place_is_kept_once_and_saved_on_demand(robot, start, tmp_path):
    recorder, drive = start(uses_depth=False, image_transport='compressed', is_rectified=True)
    drive.camera = replace(CAMERA, distortion=(-0.25, 0.06, 0.0, 0.0, 0.0))
    drive.pass_by(0.0, compressed=True)
    drive.wait_for(1)
    drive.pass_by(0.05, x_m=1.95, compressed=True)
    drive.pass_by(0.0, x_m=2.6, compressed=True)
    drive.wait_for(2)
    saved = robot.call(SaveMap, 'map_recorder/save_map')
    assert (saved.success, saved.num_keyframes) == (True, 2)
    for keyframe in load_map(tmp_path / 'map'):
        assert (keyframe.depth, keyframe.image_format) == (None, 'png')
        assert keyframe.camera == CAMERA
    drive.pass_by(1.0, compressed=True)
    drive.wait_for(3)
    # It may write again what it has written, and nothing else.
    assert robot.call(SaveMap, 'map_recorder/save_map').num_keyframes == 3
    other = robot.call(SaveMap, 'map_recorder/save_map', path=str(tmp_path))
    assert not other.success
    drive.pass_by(2.0, compressed=True)
    drive.wait_for(4)
    # What lies elsewhere alone is still to be saved here.
    assert robot.call(SaveMap, 'map_recorder/save_map', path=str(tmp_path / 'copy')).success
    robot.stop_node(recorder)
    assert len(load_map(tmp_path / 'map')) == 4


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'frame_id': 'odom'}, "pose is in frame 'odom', wanted map_frame 'map'"),
        ({'depth': 'rgb8'}, "Depth encoding 'rgb8' is not supported"),
        (
            {'depth_frame_id': 'depth_optical'},
            "depth is in frame 'depth_optical', wanted that of the image, 'camera_optical'",
        ),
    ],
)
def test_what_cannot_be_used_is_left_out_with_the_reason(robot, start, fields, words):
    # Images are half a second apart: the first one is given up when the third has come.
    recorder, drive = start(max_wait_s=0.9)
    with log_of_nodes() as read_log:
        wait_until(lambda: drive.pass_by(0.0, **fields) and words in read_log())
    empty = robot.call(SaveMap, 'map_recorder/save_map')
    assert not empty.success
    assert 'no keyframe to save' in empty.message
    # The next good one is kept, once those before it are given up.
    wait_until(lambda: drive.pass_by(1.0) and len(recorder._map) == 1)


def test_images_that_wait_in_vain_are_counted(robot, start):
    recorder, _ = start(max_wait_s=1.0, uses_depth=False)
    pixels = np.zeros((240, 320, 3), np.uint8)
    with log_of_nodes() as read_log:
        for number in range(10):
            image = robot.image(pixels, 100.0 + 0.5 * number)
            robot.spinner_of(recorder).call(lambda image=image: recorder._on_image(image))
        wait_until(lambda: recorder._num_left_out == 8)
        assert 'An image is left out' in read_log()


@pytest.mark.parametrize('rate_hz', [10, 30, 100])
def test_late_poses_find_their_images_however_fast_the_camera_is(robot, start, rate_hz):
    recorder, _ = start(max_wait_s=5.0)
    robot.infos.publish(info_from_camera(CAMERA, robot.header()))
    wait_until(lambda: recorder._camera_info)
    pixels = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)
    depth_m = np.ones(pixels.shape[:2])
    images = [robot.image(pixels, 100.0 + number / rate_hz) for number in range(4 * rate_hz)]
    places = [camera_pose((1.0 * number, 2.0, 1.25), 0.0) for number in range(len(images))]

    def see():
        for image in images:
            recorder._on_depth(depth_message(image.header, depth_m, '16UC1'))
            recorder._on_image(image)

    def hear():
        for image, place in zip(images, places, strict=True):
            header = Header(stamp=image.header.stamp, frame_id='map')
            recorder._on_camera_pose(PoseStamped(header=header, pose=pose_from_transform(place)))

    robot.spinner_of(recorder).call(see)
    waiting = len(recorder._images)
    assert min(len(images), 40) <= waiting <= _MAX_WAITING
    assert len(recorder._depths) <= 2 * _MAX_WAITING
    robot.spinner_of(recorder).call(hear)
    wait_until(lambda: len(recorder._map) + recorder._num_left_out == waiting)
    assert recorder._num_left_out == 0


def test_an_image_of_the_future_holds_nothing_up(robot, start):
    recorder, drive = start(uses_depth=False)
    future = robot.image(np.zeros((240, 320, 3), np.uint8), 100_000.0)
    robot.images.publish(future)
    wait_until(lambda: recorder._images)
    drive.pass_by(0.0)
    drive.wait_for(1)
    assert recorder._num_left_out == 1


@pytest.mark.parametrize('depth_frame_id', ['', 'front_optical'])
def test_depth_without_a_frame_or_in_that_of_the_camera_is_taken(start, depth_frame_id):
    _, drive = start(camera_frame='front_optical')
    drive.pass_by(0.0, depth_frame_id=depth_frame_id)
    drive.wait_for(1)


def test_pose_nearest_to_an_image_is_taken_once_no_nearer_one_can_come():
    before, after, late = (
        PoseStamped(header=Header(stamp=stamp_from_seconds(stamp_s)))
        for stamp_s in (9.985, 10.005, 10.5)
    )

    def find(*poses, is_final=False):
        return _nearest(deque(poses), 10.0, 0.02, is_final=is_final)

    assert find(before) is None
    assert find(before, is_final=True) is before
    assert find(before, after, late) is after
    assert find(late) is None
    assert find(is_final=True) is None


def test_a_camera_that_is_silent_is_named(start):
    with log_of_nodes() as read_log:
        start(uses_depth=False)
        wait_until(lambda: 'No image has come on /coam/image for ' in read_log())


def test_a_camera_that_falls_silent_is_named(start):
    _, drive = start(uses_depth=False)
    drive.pass_by(0.0)
    drive.wait_for(1)
    with log_of_nodes() as read_log:
        wait_until(lambda: 'No image has come on /coam/image for ' in read_log())


def test_subscriptions_are_those_of_the_list(robot, start):
    start()
    for topic in set(interfaces.MAP_RECORDER_SUBSCRIPTIONS) - {interfaces.COMPRESSED_IMAGE}:
        name = f'/coam/{topic.name}'
        wait_until(lambda name=name: robot.node.get_subscriptions_info_by_topic(name))
        found = robot.node.get_subscriptions_info_by_topic(name)
        assert {info.qos_profile.reliability for info in found} == {topic.profile().reliability}


# ---- on disk


def test_map_is_saved_while_it_is_recorded(robot, start, tmp_path):
    recorder, drive = start(save_period_s=0.1)
    for count in (1, 2):
        drive.pass_by(0.5 * count)
        drive.wait_for(count)
        wait_until(lambda: (tmp_path / 'map').is_dir())
        # What is there at any moment is whole.
        wait_until(lambda n=count: len(load_map(tmp_path / 'map')) == n)
    # Then nothing is left to do at the end but to say so.
    with log_of_nodes() as read_log:
        robot.stop_node(recorder)
        wait_until(lambda: 'Next: coam map describe' in read_log())


def test_map_is_saved_at_the_end_also_where_another_save_is_due(robot, start, tmp_path):
    recorder, drive = start(save_period_s=1e-6)
    for count in range(1, 6):
        drive.pass_by(0.5 * count)
        drive.wait_for(count)
    robot.stop_node(recorder)
    assert len(load_map(tmp_path / 'map')) == 5


def test_images_that_come_during_a_save_are_kept(robot, start, monkeypatch, tmp_path):
    recorder, drive = start(uses_depth=False)
    has_begun, may_end = threading.Event(), threading.Event()

    def save_slowly(*arguments, save=recorded_map.save_map, **options):
        count = save(*arguments, **options)
        has_begun.set()
        may_end.wait(DEADLINE_S)
        return count

    drive.pass_by(0.0)
    drive.wait_for(1)
    monkeypatch.setattr(recorded_map, 'save_map', save_slowly)
    future = robot.call_async(SaveMap, 'map_recorder/save_map')
    assert has_begun.wait(DEADLINE_S)
    drive.pass_by(1.0)
    drive.wait_for(2)
    assert not future.done()
    may_end.set()
    wait_until(future.done)
    assert (future.result().success, future.result().num_keyframes) == (True, 1)
    robot.stop_node(recorder)
    assert len(load_map(tmp_path / 'map')) == 2


def test_one_folder_may_have_two_names(robot, start, monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    recorder, drive = start(uses_depth=False, map_path='~/map')
    drive.pass_by(0.0)
    drive.wait_for(1)
    assert robot.call(SaveMap, 'map_recorder/save_map', path=str(tmp_path / 'map')).success
    drive.pass_by(1.0)
    drive.wait_for(2)
    robot.stop_node(recorder)
    assert len(load_map(tmp_path / 'map')) == 2


def test_a_path_without_a_home_is_refused_by_name(robot, start):
    _, drive = start(uses_depth=False)
    drive.pass_by(0.0)
    drive.wait_for(1)
    answer = robot.call(SaveMap, 'map_recorder/save_map', path='~nobody_of_this_name/map')
    assert not answer.success
    assert '~nobody_of_this_name/map' in answer.message


def lose_disk(disk):
    """Let a folder vanish: nothing can be written to it from then on."""
    shutil.rmtree(disk, ignore_errors=True)
    disk.write_text('')


def test_a_map_whose_disk_is_gone_is_saved_elsewhere(robot, start, monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    recorder, drive = start(uses_depth=False, map_path=str(tmp_path / 'disk' / 'map'))
    drive.pass_by(0.0)
    drive.wait_for(1)
    lose_disk(tmp_path / 'disk')
    with log_of_nodes() as read_log:
        assert robot.change_state('map_recorder', 'deactivate')
        wait_until(lambda: 'keyframes in ~/.ros/coam_map_' in read_log())
    (path,) = (tmp_path / 'home' / '.ros').iterdir()
    assert len(load_map(path)) == 1
    # More of the same drive goes there, too.
    assert robot.change_state('map_recorder', 'activate')
    drive.pass_by(1.0)
    drive.wait_for(2)
    assert robot.change_state('map_recorder', 'deactivate')
    assert list((tmp_path / 'home' / '.ros').iterdir()) == [path]
    assert len(load_map(path)) == 2
    assert robot.change_state('map_recorder', 'cleanup')
    assert recorder._map is None


def test_a_map_that_can_be_saved_nowhere_stays(robot, start, monkeypatch, tmp_path):
    recorder, drive = start(uses_depth=False, map_path=str(tmp_path / 'disk' / 'map'))
    drive.pass_by(0.0)
    drive.wait_for(1)
    lose_disk(tmp_path / 'disk')
    monkeypatch.setattr(map_recorder_node, '_SPARE_FOLDERS', (str(tmp_path / 'disk' / 'spare'),))
    assert robot.change_state('map_recorder', 'deactivate')
    assert not robot.change_state('map_recorder', 'cleanup')
    assert robot.state_of('map_recorder') == 'inactive'
    assert '1 keyframes are in memory only' in recorder.last_error
    # Recording may go on, and what it has is saved when there is a place for it.
    assert robot.change_state('map_recorder', 'activate')
    drive.pass_by(1.0)
    drive.wait_for(2)
    (tmp_path / 'disk').unlink()
    assert robot.change_state('map_recorder', 'deactivate')
    assert len(load_map(tmp_path / 'disk' / 'map')) == 2
    assert robot.change_state('map_recorder', 'cleanup')
    # The next map is another one, of the same places.
    shutil.rmtree(tmp_path / 'disk')
    assert robot.change_state('map_recorder', 'configure')
    assert robot.change_state('map_recorder', 'activate')
    drive.pass_by(0.0)
    drive.wait_for(1)


def test_a_recorder_that_is_not_configured_says_so(robot):
    robot.start(MapRecorderNode, autostart=False)
    answer = robot.call(SaveMap, 'map_recorder/save_map')
    assert not answer.success
    assert 'not configured' in answer.message


def break_save(monkeypatch):
    monkeypatch.setattr(recorded_map, 'save_map', lambda *_, **__: {}['key'])


def test_a_fault_of_a_save_while_it_is_recorded_is_logged(start, monkeypatch):
    _, drive = start(uses_depth=False, save_period_s=0.2)
    break_save(monkeypatch)
    drive.pass_by(0.0)
    with log_of_nodes() as read_log:
        wait_until(lambda: "KeyError: 'key'" in read_log())
        assert 'The map is not saved:\nTraceback' in read_log()


def test_what_was_recorded_is_saved_even_where_the_last_images_break_the_node(
    robot, start, monkeypatch, tmp_path
):
    recorder, drive = start(uses_depth=False)
    drive.pass_by(0.0)
    drive.wait_for(1)
    monkeypatch.setattr(recorder, '_work', lambda **_: {}['key'])
    with pytest.raises(KeyError):
        robot.stop_node(recorder)
    assert len(load_map(tmp_path / 'map')) == 1
    recorder.destroy_node()


def test_a_map_that_is_there_is_not_replaced_unasked(robot, scene):
    recorder = robot.start(
        MapRecorderNode, map_path=str(scene.map_path), pose_source='topic', autostart=True
    )
    wait_until(lambda: recorder.last_error)
    assert str(scene.map_path) in recorder.last_error
