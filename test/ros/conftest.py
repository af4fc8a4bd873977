"""Fixtures of the tests with ROS 2; what they are made of is in ros_harness."""

from __future__ import annotations

import os

import pytest

rclpy = pytest.importorskip('rclpy', reason='ROS 2 is not here; ./run test brings it')

from coam_msgs.msg import KeyframeArray  # noqa: E402
from coam_ros.mapping.builder import build_map  # noqa: E402
from coam_ros.mapping.keyframe import Keyframe  # noqa: E402
from coam_ros.mapping.storage import save_map  # noqa: E402
from coam_ros.matching import CoamMatcher  # noqa: E402
from coam_ros.nodes import qos  # noqa: E402
from coam_ros.rendering import camera_pose, load_photographs, Room, RoomConfig  # noqa: E402
from map_samples import encode  # noqa: E402
import numpy as np  # noqa: E402
from ros_harness import CAMERA, IMAGE_AREA_PX, Robot, Scene  # noqa: E402


@pytest.fixture(scope='session')
def ros():
    # Ports of domains up to 101 lie below those that Linux hands out to anyone.
    domain_id = 1 + os.getpid() % 100
    with pytest.MonkeyPatch.context() as environment:
        # For processes that tests start, too.
        environment.setenv('ROS_DOMAIN_ID', str(domain_id))
        environment.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        rclpy.init()
        yield
        rclpy.try_shutdown()


@pytest.fixture(scope='session')
def scene(tmp_path_factory):
    config = RoomConfig(
        (4.0, 4.0, 2.5), num_floor_boxes=3, num_hung_boxes=3, num_centre_boxes=0, texels_per_m=160
    )
    names = ('astronaut', 'motorcycle', 'chelsea', 'coins', 'rocket')
    room = Room.generate(3, config, list(load_photographs(names).values()))
    other = Room.generate(4, config, list(load_photographs(('hubble', 'retina')).values()))
    matcher = CoamMatcher.load(image_area_px=IMAGE_AREA_PX)
    frames = []
    for number in range(8):
        T_map_camera = camera_pose((1.9, 2.0, 1.25), number * np.pi / 4)
        image, depth_m = room.render(T_map_camera, CAMERA)
        frames.append(
            Keyframe(
                id=number,
                stamp_s=float(number),
                T_map_camera=T_map_camera,
                camera=CAMERA,
                image=encode(image[..., ::-1], '.jpg'),
                depth=encode(np.round(depth_m * 1e3).astype(np.uint16), '.png'),
            )
        )
    keyframe_map = build_map(frames, matcher)
    matcher.close()
    map_path = tmp_path_factory.mktemp('maps') / 'room'
    save_map(keyframe_map, map_path)
    image, _ = other.render(camera_pose((2.0, 2.0, 1.2), 0.5), CAMERA)
    return Scene(room, map_path, tuple(keyframe_map), image)


@pytest.fixture
def robot(ros):
    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture
def listed_robot(ros):
    """A robot in a namespace of its own, for questions to the graph.

    It answers for the first node of a name; rclpy now and then keeps a destroyed node of a test
    before until the garbage is collected, and that one would answer then.
    """
    robot = Robot('/listed')
    yield robot
    robot.close()


@pytest.fixture
def keyframes_topic(robot):
    return robot.talk(KeyframeArray, 'keyframes', qos.latched(100))


@pytest.fixture(scope='module')
def shared_robot(ros, scene):
    """A robot whose matcher runs through many tests, as it should through many bad inputs."""
    robot = Robot('/shared')
    robot.start_matcher(map_path=str(scene.map_path))
    robot.send(robot.image(scene.view(0.3)[0]))
    yield robot
    robot.close()


@pytest.fixture
def running_robot(shared_robot):
    shared_robot.forget_messages()
    return shared_robot
