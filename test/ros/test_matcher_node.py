"""The matcher as a robot uses it: real topics, real model, rendered photographs."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
import re
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from coam_msgs.msg import RelocalizationStatus
from coam_msgs.srv import LoadMap, Relocalize, SaveMap
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import invert, pose_error, transform_points
from coam_ros.localization import LocalizationState
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.storage import load_map, save_map
from coam_ros.nodes import interfaces, qos
from coam_ros.nodes.attempt import Frame
from coam_ros.nodes.conversions import (
    info_from_camera,
    pose_from_transform,
    transform_from_pose,
)
from coam_ros.nodes.map_messages import map_to_messages, MapReceiver
from coam_ros.rendering import camera_pose
import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from ros_harness import CAMERA, IMAGE_AREA_PX, log_of_nodes, set_clock, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage

NONE = RelocalizationStatus.NONE


def message_of(keyframe_map):
    (message,) = map_to_messages(keyframe_map, [list(keyframe_map)], Time())
    return message


def check_pose(robot, header, T_map_camera):
    pose = robot.poses.wait_for(lambda pose: pose.header.stamp == header.stamp)
    assert pose.header.frame_id == 'map'
    distance_m, angle_deg = pose_error(transform_from_pose(pose.pose.pose), T_map_camera)
    assert distance_m < 0.05
    assert angle_deg < 1.5
    return pose


def test_the_documented_start_of_amcl_hands_a_pose_over(robot, scene, tmp_path):
    text = (Path(__file__).parents[2] / 'docs' / 'robot.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    (tmp_path / 'start_amcl.py').write_text(code)
    starts = robot.listen(PoseWithCovarianceStamped, '/initialpose', qos.events())
    robot.start_matcher(map_path=str(scene.map_path))
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / 'start_amcl.py')],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    pixels, T_map_camera = scene.view(0.3)
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
        robot.send(robot.image(pixels))
    child.kill()
    assert child.wait() == 0, child.stdout.read()
    pose = starts.wait_for()
    assert pose.header.frame_id == 'map'
    assert pose_error(transform_from_pose(pose.pose.pose), T_map_camera)[0] < 0.05


def test_image_gives_pose_matches_and_status_with_its_stamp(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    pixels, T_map_camera = scene.view(0.3)
    image = robot.image(pixels)
    status = robot.send(image)

    assert (status.reason, status.message) == (NONE, '')
    assert status.state == RelocalizationStatus.LOCALIZED
    assert 30 <= status.num_inlier_blocks < status.num_inliers <= status.num_matches
    assert status.inlier_ratio == pytest.approx(status.num_inliers / status.num_matches)
    assert 0.1 < status.coverage <= 1.0
    assert 0.0 < status.reprojection_error_px < 4.0
    assert len(status.keyframe_ids) == 3
    assert status.stage_names == ['decode', 'encode', 'retrieve', 'match', 'pose']
    assert all(0.0 < duration < 30.0 for duration in status.stage_durations_s)
    assert status.num_keyframes == len(scene.keyframes)
    assert status.engine_id
    assert status.map_id

    pose = check_pose(robot, image.header, T_map_camera)
    covariance = np.reshape(pose.pose.covariance, (6, 6))
    assert np.linalg.eigvalsh(covariance)[0] > 0.0
    std_m = np.sqrt(covariance[:3, :3].diagonal()).max()
    error_m = np.linalg.norm(transform_from_pose(pose.pose.pose)[:3, 3] - T_map_camera[:3, 3])
    assert error_m / 4 < std_m < 0.1, (error_m, std_m)

    matches = robot.matches.wait_for(lambda m: m.keyframe_id == status.keyframe_ids[0])
    assert matches.header == image.header
    assert matches.engine_id == status.engine_id
    assert (matches.query_width, matches.keyframe_height) == (320, 240)
    count = len(matches.scores)
    lengths = [
        len(values)
        for values in (matches.query_pixels, matches.keyframe_pixels, matches.landmarks)
    ]
    assert lengths == [2 * count, 2 * count, 3 * count]
    assert list(matches.scores) == sorted(matches.scores, reverse=True)
    # What is said to agree with the pose does: landmarks project onto their query pixels.
    is_inlier = np.array(matches.inlier_mask, bool)
    landmarks = np.reshape(matches.landmarks, (-1, 3))[is_inlier]
    pixels_of = np.reshape(matches.query_pixels, (-1, 2))[is_inlier]
    T_camera_map = invert(transform_from_pose(pose.pose.pose))
    errors = CAMERA.project(transform_points(T_camera_map, landmarks)) - pixels_of
    assert np.linalg.norm(errors, axis=1).max() < 8.0


def test_place_that_is_not_mapped_gives_status_and_matches_but_no_pose(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    image = robot.image(scene.other_image)
    status = robot.send(image)
    assert status.reason not in (NONE, RelocalizationStatus.ENGINE_ERROR)
    assert status.state == RelocalizationStatus.SEARCHING
    assert status.message
    assert not robot.poses.messages
    good, T_map_camera = scene.view(2.0)
    image = robot.image(good)
    assert robot.send(image).reason == NONE
    check_pose(robot, image.header, T_map_camera)
    assert len(robot.poses.messages) == 1


def test_first_pose_on_little_evidence_waits_for_the_next_image(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path), confirmation_inliers=100000)
    image = robot.image(scene.view(0.3)[0], 1000.0)
    status = robot.send(image)
    assert status.reason == RelocalizationStatus.NOT_CONFIRMED
    assert status.state == RelocalizationStatus.SEARCHING
    assert not robot.poses.messages
    assert robot.send(robot.image(scene.view(0.3)[0], 1000.5)).reason == NONE


def test_robot_that_sees_nothing_known_for_long_is_lost(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path), lost_after_s=60.0)
    image = robot.image(scene.view(0.3)[0], 1000.0)
    assert robot.send(image).state == RelocalizationStatus.LOCALIZED
    image = robot.image(scene.other_image, 1050.0)
    assert robot.send(image).state == RelocalizationStatus.LOCALIZED
    assert robot.send(robot.image(scene.other_image, 1061.0)).state == RelocalizationStatus.LOST
    image = robot.image(scene.view(0.3)[0], 1070.0)
    assert robot.send(image).state == RelocalizationStatus.LOCALIZED
    image = robot.image(scene.other_image, 1131.0)
    image.encoding = 'unreadable'
    assert robot.send(image).state == RelocalizationStatus.LOST


def test_matcher_that_gets_no_images_at_all_says_so_in_its_log(robot, scene):
    with log_of_nodes() as read_log:
        robot.start_matcher(map_path=str(scene.map_path))
        wait_until(lambda: 'no image on /coam/image for 2 s' in read_log())


def test_robot_whose_camera_falls_silent_is_lost_until_it_is_localized_again(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path), lost_after_s=1.0)
    seen = robot.send(robot.image(scene.view(0.3)[0]))
    assert seen.state == RelocalizationStatus.LOCALIZED
    lost = robot.statuses.wait_for(lambda s: s.reason == RelocalizationStatus.NO_IMAGE)
    assert lost.state == RelocalizationStatus.LOST
    assert 'No image has come on /coam/image for ' in lost.message
    assert (lost.map_id, lost.engine_id) == (seen.map_id, seen.engine_id)
    # Long enough for the camera to be looked after again.
    answer = robot.call(Relocalize, 'relocalize', timeout_s=2.5)
    assert answer.status.state == RelocalizationStatus.LOST
    assert answer.status.reason == RelocalizationStatus.NO_IMAGE
    # It is said once, not with every look.
    reasons = [status.reason for status in robot.statuses.messages]
    assert reasons.count(RelocalizationStatus.NO_IMAGE) == 1
    assert robot.send(robot.image(scene.other_image)).state == RelocalizationStatus.LOST
    assert robot.send(robot.image(scene.view(0.3)[0])).state == RelocalizationStatus.LOCALIZED


@pytest.mark.parametrize('encoding', ['mono8', 'bgr8'])
def test_other_encodings_localize_too(robot, scene, encoding):
    robot.start_matcher(map_path=str(scene.map_path))
    pixels, T_map_camera = scene.view(0.3)
    if encoding == 'mono8':
        image = robot.image(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    else:
        image = robot.image(np.ascontiguousarray(pixels[..., ::-1]))
    image.encoding = encoding
    assert robot.send(image).reason == NONE
    check_pose(robot, image.header, T_map_camera)


def test_compressed_transport(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path), image_transport='compressed')
    pixels, T_map_camera = scene.view(0.3)
    data = cv2.imencode('.jpg', pixels[..., ::-1])[1].tobytes()
    image = CompressedImage(header=robot.header(), format='jpeg', data=array('B', data))
    assert robot.send(image).reason == NONE
    check_pose(robot, image.header, T_map_camera)


@pytest.mark.parametrize('is_rectified', [False, True])
def test_distorted_camera_localizes_by_its_camera_info(robot, scene, is_rectified):
    robot.start_matcher(map_path=str(scene.map_path), is_rectified=is_rectified)
    camera = PinholeCamera(320, 240, 260.0, 260.0, 159.5, 119.5, (-0.25, 0.06, 0.0, 0.0, 0.0))
    T_map_camera = camera_pose((2.1, 1.9, 1.2), 0.3, 0.05)
    image = robot.image(scene.room.render(T_map_camera, CAMERA if is_rectified else camera)[0])
    assert robot.send(image, info_from_camera(camera, image.header)).reason == NONE
    check_pose(robot, image.header, T_map_camera)


def test_newest_image_wins_and_the_others_are_counted(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path), max_rate_hz=0.2, lost_after_s=60.0)
    # Before the five seconds in which the others have to come.
    first, *images = [robot.image(scene.view(0.3)[0]) for _ in range(6)]
    robot.send(first)
    num_before = node._num_images
    for number, image in enumerate(images, start=1):
        robot.images.publish(image)
        # One by one: of two that wait in the middleware the node would see only the newer.
        wait_until(lambda number=number: node._num_images == num_before + number)
    newest = images[-1].header.stamp
    status = robot.statuses.wait_for(lambda status: status.header.stamp == newest)
    assert status.dropped_frames == 4
    assert len(robot.statuses.messages) == 2


def test_diagnostics_tell_state_rate_latency_and_engine(robot, scene):
    diagnostics = robot.listen(DiagnosticArray, '/diagnostics', qos.events())
    robot.start_matcher(map_path=str(scene.map_path), lost_after_s=30.0)
    warning = DiagnosticStatus.WARN

    def wait_for(task, accept):
        def fits(array):
            return any(s.name == f'coam/matcher: {task}' and accept(s) for s in array.status)

        array = diagnostics.wait_for(fits)
        (found,) = [s for s in array.status if s.name == f'coam/matcher: {task}' and accept(s)]
        return {value.key: value.value for value in found.values}

    wait_for('localization', lambda s: s.level == DiagnosticStatus.WARN)
    wait_for('input', lambda s: s.level == DiagnosticStatus.WARN and 'no image' in s.message)
    status = robot.send(robot.image(scene.view(0.3)[0]))
    localization = wait_for('localization', lambda s: s.level == DiagnosticStatus.OK)
    assert localization['lifecycle state'] == 'active'
    assert localization['localized'] == '1'
    latency = wait_for('latency', lambda s: any(value.key == 'pose [ms]' for value in s.values))
    assert {'encode [ms]', 'match [ms]', 'pose [ms]'} <= set(latency)
    encode_ms = status.stage_durations_s[status.stage_names.index('encode')] * 1e3
    assert latency['encode [ms]'] == f'median {encode_ms:.0f}, p95 {encode_ms:.0f}'
    whole_ms = float(re.match(r'median (\d+)', latency['image to publication [ms]'])[1])
    assert whole_ms == pytest.approx(status.latency_s * 1e3, rel=1e-6)
    engine = wait_for('engine and map', lambda s: s.values)
    assert engine['keyframes'] == '8'
    assert engine['backend'].startswith(('onnxruntime', 'openvino'))
    silence = re.compile(r'localized \d+ s ago, nothing since')
    wait_for('localization', lambda s: silence.fullmatch(s.message) and s.level == warning)
    unreadable = robot.image(scene.other_image)
    unreadable.encoding = 'unreadable'
    for _ in range(2):
        robot.send(unreadable)
    wait_for('localization', lambda s: (s.message, s.level) == ('localized', warning))
    robot.send(robot.image(scene.other_image, 2000.0))
    wait_for('localization', lambda s: (s.message, s.level) == ('lost', warning))
    localization = wait_for(
        'localization', lambda s: re.fullmatch(r'lost \d s ago, nothing since', s.message)
    )
    assert (localization['localized'], localization['not localized']) == ('1', '1')
    # An image that overtakes the first calibration is refused, too.
    assert int(localization['refused']) >= 2
    diagnostics.clear()
    camera = wait_for('input', lambda s: 'no image' in s.message)
    assert int(camera['received']) >= 4
    assert (camera['rate [Hz]'], camera['dropped for newer ones']) == ('0.0', '0')
    assert robot.change_state('matcher', 'deactivate')
    diagnostics.clear()
    wait_for('localization', lambda s: (s.message, s.level) == ('inactive', warning))
    wait_for('input', lambda s: s.message == 'ok')


def test_model_and_camera_are_those_of_the_parameters(robot, scene):
    node = robot.start_matcher(
        map_path=str(scene.map_path),
        backend='onnxruntime',
        num_threads=1,
        camera_frame='front_optical',
    )
    model = node._matcher._model
    assert model._encoder._session.get_session_options().intra_op_num_threads == 1
    image = robot.image(scene.view(0.3)[0])
    info = info_from_camera(CAMERA, image.header)
    attempt = node._localizer.localize(Frame(image, info, 0.0), None)
    assert attempt.header.frame_id == 'front_optical'
    encoded = node._matcher.encode(scene.view(0.3)[0])
    assert encoded.grey.size == pytest.approx(IMAGE_AREA_PX, rel=0.1)


def test_keyframes_are_not_encoded_again_for_the_next_image(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path))
    image = robot.image(scene.view(0.3)[0])
    for _ in range(2):
        robot.send(image)
    cache = node._localizer._session.relocalizer.feature_cache
    assert (cache.misses, cache.hits) == (3, 3)


def graph_of(node, name):
    """What the ROS graph knows of a node: topics out, topics in and services, with types."""
    return (
        dict(node.get_publisher_names_and_types_by_node(name, node.get_namespace())),
        dict(node.get_subscriber_names_and_types_by_node(name, node.get_namespace())),
        dict(node.get_service_names_and_types_by_node(name, node.get_namespace())),
    )


def expected_in_graph(node, endpoints, kind):
    return {
        node.resolve_topic_name(endpoint.name): [
            f'{endpoint.type.__module__.split(".")[0]}/{kind}/{endpoint.type.__name__}'
        ]
        for endpoint in endpoints
    }


def test_names_types_and_qos_are_those_of_the_list(listed_robot, scene):
    node = listed_robot.start_matcher(map_path=str(scene.map_path))
    listed_robot.start_map_server(map_path=str(scene.map_path))
    subscriptions = set(interfaces.MATCHER_SUBSCRIPTIONS) - {interfaces.COMPRESSED_IMAGE}
    expected = (
        expected_in_graph(node, interfaces.MATCHER_PUBLISHERS, 'msg'),
        expected_in_graph(node, subscriptions, 'msg'),
        expected_in_graph(node, interfaces.MATCHER_SERVICES, 'srv'),
    )

    def is_known():
        # One look at the graph for both questions: it spreads with a delay of its own.
        found = graph_of(node, 'matcher')
        ours = {name for name in found[0] if name.startswith('/listed/')}
        return all(
            want.items() <= have.items() for want, have in zip(expected, found, strict=True)
        ) and ours - {'/listed/matcher/transition_event'} == set(expected[0]) - {'/diagnostics'}

    wait_until(is_known)
    server = (
        expected_in_graph(node, interfaces.MAP_SERVER_PUBLISHERS, 'msg'),
        {
            name.replace('/matcher/', '/map_server/'): types
            for name, types in expected_in_graph(
                node, interfaces.MAP_SERVER_SERVICES, 'srv'
            ).items()
        },
    )
    wait_until(lambda: server[0].items() <= graph_of(node, 'map_server')[0].items())
    wait_until(lambda: server[1].items() <= graph_of(node, 'map_server')[2].items())
    (info,) = node.get_publishers_info_by_topic('/listed/pose')
    assert info.qos_profile.durability.name == 'TRANSIENT_LOCAL'


# ---- services


def relocalize_while_images_come(robot, images, **request):
    """Call the service and feed images until it answers."""
    future = robot.call_async(Relocalize, 'relocalize', **request)
    for image in images:
        robot.send(image)
        if future.done():
            return future.result()
    raise AssertionError('relocalize did not answer')


def test_relocalize_answers_with_the_outcome_of_the_next_image(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    pixels, T_map_camera = scene.view(0.3)
    robot.send(robot.image(pixels))
    images = [robot.image(pixels) for _ in range(5)]
    answer = relocalize_while_images_come(robot, images, timeout_s=30.0)
    assert answer.success
    assert answer.status.header.stamp in [image.header.stamp for image in images]
    assert answer.pose.header.stamp == answer.status.header.stamp
    distance_m, _ = pose_error(transform_from_pose(answer.pose.pose.pose), T_map_camera)
    assert distance_m < 0.05


def test_relocalize_says_why_it_failed(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path))
    robot.send(robot.image(scene.view(0.3)[0]))
    images = [robot.image(scene.other_image) for _ in range(5)]
    answer = relocalize_while_images_come(robot, images, timeout_s=30.0)
    assert not answer.success
    assert answer.status.reason != NONE
    assert answer.status.message
    assert answer.pose == PoseWithCovarianceStamped()


def test_relocalize_times_out_without_images_and_others_are_served_meanwhile(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path), relocalize_timeout_s=0.2)
    num_timers = len(list(node.timers))
    robot.call(Relocalize, 'relocalize', use_prior=True, prior=far_away(), timeout_s=0.1)
    patient = robot.call_async(Relocalize, 'relocalize', timeout_s=30.0)
    answer = robot.call(Relocalize, 'relocalize')
    assert not answer.success
    assert answer.status.reason == RelocalizationStatus.NO_IMAGE
    assert '0.2 s' in answer.status.message
    assert not patient.done()
    loaded = robot.call(LoadMap, 'load_map', path=str(scene.map_path))
    assert loaded.success
    # What was asked for by who waits no more does not count.
    assert robot.send(robot.image(scene.view(0.3)[0])).reason == NONE
    wait_until(patient.done)
    assert patient.result().success
    assert len(list(node.timers)) == num_timers


def test_relocalize_asks_for_an_image_that_comes_after_the_call_whatever_the_rate(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path), max_rate_hz=0.02)
    pixels, _ = scene.view(0.3)
    robot.send(robot.image(pixels))
    num_images = node._num_images
    held_back, fresh = robot.image(pixels), robot.image(pixels)
    robot.images.publish(held_back)
    wait_until(lambda: node._num_images > num_images)
    future = robot.call_async(Relocalize, 'relocalize', timeout_s=20.0)
    robot.statuses.wait_for(lambda status: status.header == held_back.header)
    robot.send_image_only(fresh)
    wait_until(future.done)
    assert future.result().status.header == fresh.header


def test_each_call_of_relocalize_is_answered_by_its_own_prior(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path))
    pixels, _ = scene.view(0.3)
    robot.send(robot.image(pixels))
    far = robot.call_async(
        Relocalize, 'relocalize', use_prior=True, prior=far_away(), timeout_s=30.0
    )
    # These two ask for the same, and one image answers both.
    anywhere = [robot.call_async(Relocalize, 'relocalize', timeout_s=30.0) for _ in range(2)]
    wait_until(lambda: len(node._worker._requests) == 3)
    for _ in range(2):
        robot.send(robot.image(pixels))
    wait_until(lambda: far.done() and all(call.done() for call in anywhere))
    assert far.result().status.reason == RelocalizationStatus.NO_KEYFRAMES
    assert [call.result().success for call in anywhere] == [True, True]


def test_prior_restricts_the_search(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path), prior_radius_m=1.0)
    pixels, T_map_camera = scene.view(0.3)
    robot.send(robot.image(pixels))

    def with_prior(x_m, frame_id='map'):
        prior = PoseWithCovarianceStamped()
        prior.header.frame_id = frame_id
        moved = T_map_camera.copy()
        moved[0, 3] += x_m
        prior.pose.pose = pose_from_transform(moved)
        images = [robot.image(pixels) for _ in range(5)]
        return relocalize_while_images_come(
            robot, images, timeout_s=30.0, use_prior=True, prior=prior
        )

    assert with_prior(0.2).success
    far = with_prior(50.0)
    assert not far.success
    assert far.status.reason == RelocalizationStatus.NO_KEYFRAMES
    wrong_frame = robot.call(
        Relocalize, 'relocalize', use_prior=True, prior=PoseWithCovarianceStamped()
    )
    assert wrong_frame.status.reason == RelocalizationStatus.BAD_REQUEST
    assert "frame ''" in wrong_frame.status.message


def test_initial_pose_narrows_the_search_until_the_robot_is_localized(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path), prior_radius_m=1.0, prior_lifetime_s=3600.0)
    initial_pose = robot.talk(PoseWithCovarianceStamped, 'initialpose', qos.events())
    pixels, T_map_camera = scene.view(0.3)
    prior = PoseWithCovarianceStamped()
    prior.header.frame_id = 'map'
    T_map_camera[0, 3] += 50.0
    prior.pose.pose = pose_from_transform(T_map_camera)
    initial_pose.publish(prior)
    # Topics keep no order between them, so images come until the prior has arrived.
    reasons = [robot.send(robot.image(pixels)).reason for _ in range(3)]
    assert reasons[-1] == RelocalizationStatus.NO_KEYFRAMES
    T_map_camera[0, 3] -= 50.0
    prior.pose.pose = pose_from_transform(T_map_camera)
    initial_pose.publish(prior)
    reasons = [robot.send(robot.image(pixels)).reason for _ in range(3)]
    assert reasons[-1] == NONE


def far_away():
    prior = PoseWithCovarianceStamped()
    prior.header.frame_id = 'map'
    prior.pose.pose.position.x = 50.0
    return prior


def send_until_narrowed(robot, pixels):
    """Send images until an initial pose far away, sent before, has arrived."""
    for _ in range(10):
        if robot.send(robot.image(pixels)).reason == RelocalizationStatus.NO_KEYFRAMES:
            return
    raise AssertionError('the initial pose never arrived')


def test_initial_pose_counts_for_its_lifetime(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path), prior_lifetime_s=0.1)
    robot.talk(PoseWithCovarianceStamped, 'initialpose', qos.events()).publish(far_away())
    wait_until(lambda: node._worker._prior is not None)
    wait_until(lambda: time.monotonic() > node._worker._prior_end_s, timeout_s=5.0)
    assert robot.send(robot.image(scene.view(0.3)[0])).reason == NONE


def test_relocalize_without_a_prior_searches_everywhere_whatever_the_initial_pose(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path), prior_lifetime_s=3600.0)
    pixels, _ = scene.view(0.3)
    robot.talk(PoseWithCovarianceStamped, 'initialpose', qos.events()).publish(far_away())
    send_until_narrowed(robot, pixels)
    images = [robot.image(pixels) for _ in range(5)]
    answer = relocalize_while_images_come(robot, images, timeout_s=30.0)
    assert answer.success, answer.status.message
    # Localized, the robot needs that pose no more.
    assert robot.send(robot.image(pixels)).reason == NONE


def test_pose_is_kept_for_who_comes_later_but_not_beyond_its_map(robot, scene):
    def late_poses():
        return robot.listen(PoseWithCovarianceStamped, 'pose', qos.latched())

    robot.start_matcher(map_path=str(scene.map_path))
    image = robot.image(scene.view(0.3)[0])
    assert robot.send(image).reason == NONE
    assert late_poses().wait_for().header.stamp == image.header.stamp
    assert robot.call(LoadMap, 'load_map', path=str(scene.map_path)).success
    late = late_poses()
    # A new one comes, and it is the first.
    image = robot.image(scene.view(0.4)[0])
    assert robot.send(image).reason == NONE
    assert late.wait_for().header.stamp == image.header.stamp
    assert robot.change_state('matcher', 'deactivate')
    assert late_poses().find(lambda _: True, 1.0) is None


def test_initial_pose_counts_in_the_map_alone_that_it_was_given_for(robot, scene):
    robot.start_matcher(map_path=str(scene.map_path), prior_lifetime_s=3600.0)
    pixels, _ = scene.view(0.3)
    robot.talk(PoseWithCovarianceStamped, 'initialpose', qos.events()).publish(far_away())
    send_until_narrowed(robot, pixels)
    assert robot.call(LoadMap, 'load_map', path=str(scene.map_path)).success
    assert robot.send(robot.image(pixels)).reason == NONE


def test_load_map_replaces_the_map_and_keeps_it_when_loading_fails(robot, scene, tmp_path):
    robot.start_matcher()
    image = robot.image(scene.view(0.3)[0])
    assert robot.send(image).reason == RelocalizationStatus.NO_MAP
    loaded = robot.call(LoadMap, 'load_map', path=str(scene.map_path))
    assert (loaded.success, loaded.num_keyframes) == (True, 8)
    assert robot.send(robot.image(scene.view(0.3)[0])).reason == NONE
    failed = robot.call(LoadMap, 'load_map', path=str(tmp_path / 'nothing'))
    assert (failed.success, failed.num_keyframes) == (False, 8)
    assert 'nothing' in failed.message
    assert 'former map' in failed.message
    assert robot.send(robot.image(scene.view(0.3)[0])).reason == NONE


def test_pose_in_a_map_that_was_replaced_meanwhile_is_not_published(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path))
    image = robot.image(scene.view(0.3)[0])
    info = info_from_camera(CAMERA, image.header)
    attempt = node._localizer.localize(Frame(image, info, 0.0), None)
    assert attempt.T_map_frame is not None
    node._T_map_odom = np.eye(4)
    robot.spinner_of(node).call(lambda: node._use_map(MapReceiver(KeyframeMap(scene.keyframes))))
    assert node._T_map_odom is None
    assert not node._publish(attempt)
    assert not node._publish(replace(attempt, T_map_odom=np.eye(4)))
    later = robot.image(scene.view(0.3)[0])
    assert robot.send(later).reason == NONE
    robot.poses.wait_for(lambda pose: pose.header.stamp == later.header.stamp)
    assert len(robot.poses.messages) == 1
    assert node._T_map_odom is None


def test_state_begins_anew_with_a_map_that_comes_just_after_a_pose(robot, scene, monkeypatch):
    node = robot.start_matcher(map_path=str(scene.map_path))
    image = robot.image(scene.view(0.3)[0])
    info = info_from_camera(CAMERA, image.header)
    attempt = node._localizer.localize(Frame(image, info, 0.0), None)
    other = MapReceiver(KeyframeMap(scene.keyframes))
    monkeypatch.setattr(node._diagnostics, 'record', lambda *_: node._use_map(other))
    robot.spinner_of(node).call(lambda: node._publish(attempt))
    assert node._state == LocalizationState.SEARCHING


def test_relocalize_answers_in_the_map_that_replaced_the_former_meanwhile(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path))
    pixels, _ = scene.view(0.3)
    robot.send(robot.image(pixels))
    other = KeyframeMap(scene.keyframes)
    localize = node._localizer.localize

    def localize_while_the_map_is_replaced(frame, prior):
        attempt = localize(frame, prior)
        node._localizer.localize = localize
        node._use_map(MapReceiver(other))
        return attempt

    node._localizer.localize = localize_while_the_map_is_replaced
    future = robot.call_async(Relocalize, 'relocalize', timeout_s=30.0)
    wait_until(lambda: node._worker._requests)
    robot.images.publish(robot.image(pixels))
    wait_until(lambda: node._map_receiver.keyframe_map is other)
    assert not future.done()
    robot.send(robot.image(pixels))
    wait_until(future.done)
    assert future.result().success
    assert future.result().status.map_id == other.map_id


def test_map_that_came_by_topic_is_saved_and_not_overwritten_unasked(
    robot, scene, keyframes_topic, tmp_path, monkeypatch
):
    node = robot.start_matcher()
    keyframes_topic.publish(message_of(KeyframeMap(scene.keyframes)))
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 8)
    path = tmp_path / 'copy'
    saved = robot.call(SaveMap, 'save_map', path=str(path))
    assert (saved.success, saved.num_keyframes) == (True, 8)
    assert [k.id for k in load_map(path)] == list(range(8))
    again = robot.call(SaveMap, 'save_map', path=str(path))
    assert not again.success
    assert str(path) in again.message
    monkeypatch.chdir(path)
    once_more = robot.call(SaveMap, 'save_map', path='.', overwrite=True)
    assert (once_more.success, once_more.message) == (True, str(path))
    nowhere = robot.call(SaveMap, 'save_map')
    assert not nowhere.success
    assert 'The path is empty' in nowhere.message


def test_map_of_another_frame_name_is_saved_and_loaded_again(
    robot, scene, keyframes_topic, tmp_path
):
    node = robot.start_matcher(map_frame='world')
    message = message_of(KeyframeMap(scene.keyframes[:2], frame_id='world'))
    # An empty id changes the map in use, an empty frame is the one of the poses.
    message.map_id = message.header.frame_id = ''
    keyframes_topic.publish(message)
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 2)
    assert robot.call(SaveMap, 'save_map', path=str(tmp_path / 'map')).success
    assert load_map(tmp_path / 'map').frame_id == 'world'
    assert robot.call(LoadMap, 'load_map', path=str(tmp_path / 'map')).success
    status = robot.send(robot.image(scene.view(0.3)[0]))
    assert status.reason == NONE, status.message
    assert robot.poses.wait_for().header.frame_id == 'world'
    assert robot.matches.wait_for().map_frame_id == 'world'


def test_map_in_another_frame_is_refused_however_it_comes(robot, scene, keyframes_topic, tmp_path):
    node = robot.start_matcher(map_path=str(scene.map_path))
    other = KeyframeMap(scene.keyframes[:2], frame_id='cellar')
    save_map(other, tmp_path / 'cellar')
    answer = robot.call(LoadMap, 'load_map', path=str(tmp_path / 'cellar'))
    assert (answer.success, answer.num_keyframes) == (False, 8)
    assert "in frame 'cellar', wanted 'map'" in answer.message
    keyframes_topic.publish(message_of(other))
    keyframes_topic.publish(message_of(KeyframeMap(scene.keyframes[:3])))
    # Messages of one publisher keep their order.
    wait_until(lambda: len(node._map_receiver.keyframe_map) == 3)
    assert node._map_receiver.keyframe_map.frame_id == 'map'


# ---- time


def test_time_that_jumps_backwards_starts_anew(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path))
    pixels, T_map_camera = scene.view(0.3)
    assert robot.send(robot.image(pixels, 5000.0)).state == RelocalizationStatus.LOCALIZED
    node._T_map_odom = np.eye(4)
    # A bag is played again.
    status = robot.send(robot.image(scene.other_image, 10.0))
    assert status.state == RelocalizationStatus.SEARCHING
    assert node._T_map_odom is None
    late = robot.listen(PoseWithCovarianceStamped, 'pose', qos.latched())
    image = robot.image(pixels, 10.5)
    assert robot.send(image).reason == NONE
    check_pose(robot, image.header, T_map_camera)
    # That of the former time was not kept.
    assert late.wait_for().header.stamp == image.header.stamp


def test_robot_whose_camera_is_silent_after_the_clock_was_set_back_is_lost(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path), use_sim_time=True, lost_after_s=1.5)
    clock = robot.talk(Clock, '/clock', qos.events())
    set_clock(clock, node, 5000)
    seen = robot.send(robot.image(scene.view(0.3)[0], 5000.0))
    assert seen.state == RelocalizationStatus.LOCALIZED
    # The bag is played again, and has no images any more.
    set_clock(clock, node, 10)
    wait_until(lambda: node._last_image_s <= 10)
    set_clock(clock, node, 12)
    lost = robot.statuses.wait_for(lambda s: s.reason == RelocalizationStatus.NO_IMAGE)
    assert lost.state == RelocalizationStatus.LOST
    assert 'for 2.0 s' in lost.message


def test_simulated_time_is_used_for_latency(robot, scene):
    node = robot.start_matcher(map_path=str(scene.map_path), use_sim_time=True)
    clock = robot.talk(Clock, '/clock', qos.events())
    set_clock(clock, node, 5003)
    status = robot.send(robot.image(scene.view(0.3)[0], 5000.0))
    assert status.latency_s == pytest.approx(3.0)
