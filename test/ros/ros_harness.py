"""Real nodes over real DDS, a robot around them and a small room to be localized in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import os
from pathlib import Path
import sys
import tempfile
import threading
import time

from coam_msgs.msg import Matches, RelocalizationStatus
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.nodes import qos
from coam_ros.nodes.conversions import info_from_camera, stamp_from_seconds
from coam_ros.nodes.images import encode_image
from coam_ros.nodes.map_server_node import MapServerNode
from coam_ros.nodes.matcher_node import MatcherNode
from coam_ros.rendering import camera_pose, Room
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
import rclpy
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

# Generous: the machine may be busy with something else.
DEADLINE_S = 60.0
CAMERA = PinholeCamera(320, 240, 260.0, 260.0, 159.5, 119.5)
# The smallest that the model takes, for speed; the model itself is the shipped one.
IMAGE_AREA_PX = 384 * 384


# ---- the room


@dataclass(frozen=True, eq=False)
class Scene:
    """What the room looks like, and a map of it on disk.

    Attributes:
        room: the mapped one.
        map_path: of the saved map.
        keyframes: of the map, with descriptors.
        other_image: RGB of another room, which is not mapped.
    """

    room: Room
    map_path: Path
    keyframes: tuple[Keyframe, ...]
    other_image: np.ndarray

    def view(self, angle_rad: float, x_m: float = 2.1) -> tuple[np.ndarray, np.ndarray]:
        """RGB image and T_map_camera of a camera near the middle of the room."""
        T_map_camera = camera_pose((x_m, 1.9, 1.2), angle_rad, 0.05)
        return self.room.render(T_map_camera, CAMERA)[0], T_map_camera


# ---- ROS


class Spinner:
    """A node in an executor and a thread of its own."""

    def __init__(self, node) -> None:
        self.node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], object]) -> object:
        """Run something in the executor's thread, as callbacks are."""
        task = self._executor.create_task(function)
        wait_until(task.done)
        return task.result()

    def stop(self) -> None:
        self._executor.shutdown()
        self._thread.join(DEADLINE_S)
        self.node.destroy_node()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


def set_clock(clock, node, seconds):
    """Publish a time on /clock until a node with use_sim_time has it."""
    message = Clock(clock=stamp_from_seconds(seconds))

    def is_set():
        clock.publish(message)
        return node.get_clock().now().nanoseconds == seconds * 10**9

    wait_until(is_set)


def wait_until(condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    """Wait for a state that no message announces."""
    end_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end_s, 'the deadline passed'
        pause.wait(0.01)


@contextmanager
def log_of_nodes() -> Iterator[Callable[[], str]]:
    """What the nodes log from here on, to be read while they write.

    pytest's capfd loses what comes between its reading and its emptying, and /rosout what a node
    logs while a destroyed one of its name is still about.
    """
    stderr = os.dup(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'log'
        with path.open('ab') as log:
            os.dup2(log.fileno(), 2)
        try:
            yield path.read_text
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            sys.stderr.write(path.read_text())


class Listener:
    """Keeps the messages of a topic."""

    def __init__(self, node, message_type, topic, profile) -> None:
        self._condition = threading.Condition()
        self.messages = []
        self.topic = topic
        node.create_subscription(message_type, topic, self._on_message, profile)

    def _on_message(self, message) -> None:
        with self._condition:
            self.messages.append(message)
            self._condition.notify_all()

    def wait_for(self, accept=lambda message: True, timeout_s=DEADLINE_S):
        """Return the first message that is accepted, of those kept and those to come."""
        found = self.find(accept, timeout_s)
        assert found is not None, (
            f'nothing fitting on {self.topic} within {timeout_s} s, got {self.messages[-3:]}'
        )
        return found

    def find(self, accept, timeout_s):
        """As wait_for, but return None when time runs out."""
        with self._condition:
            self._condition.wait_for(lambda: any(map(accept, self.messages)), timeout_s)
            return next(filter(accept, self.messages), None)

    def clear(self) -> None:
        with self._condition:
            self.messages.clear()


class Talker:
    """A publisher that knows when someone listens."""

    def __init__(self, node, message_type, topic, profile) -> None:
        self._is_matched = threading.Event()
        events = PublisherEventCallbacks(matched=self._on_matched)
        self._publisher = node.create_publisher(
            message_type, topic, profile, event_callbacks=events
        )

    def _on_matched(self, event) -> None:
        if event.current_count:
            self._is_matched.set()
        else:
            self._is_matched.clear()

    def publish(self, message) -> None:
        assert self._is_matched.wait(DEADLINE_S), f'nobody listens on {self._publisher.topic_name}'
        self._publisher.publish(message)


class Robot:
    """A camera and a listener to everything, around a matcher that is tested."""

    def __init__(self, namespace: str = '/coam') -> None:
        self._namespace = namespace
        self.node = rclpy.create_node('robot', namespace=namespace)
        self.statuses = self.listen(RelocalizationStatus, 'status', qos.events(100))
        self.poses = self.listen(PoseWithCovarianceStamped, 'pose', qos.events())
        self.matches = self.listen(Matches, 'matches', qos.events(20))
        self.images = self.talk(Image, 'image', qos.events(1))
        self.compressed_images = self.talk(CompressedImage, 'image/compressed', qos.events(1))
        self.infos = self.talk(CameraInfo, 'camera_info', qos.events(1))
        self._spinners = [Spinner(self.node)]
        self._stamp_s = 1000.0

    def listen(self, message_type, topic, profile) -> Listener:
        return Listener(self.node, message_type, topic, profile)

    def talk(self, message_type, topic, profile) -> Talker:
        return Talker(self.node, message_type, topic, profile)

    def start(self, node_class, **parameters):
        """Start a node with parameters; of the matcher some of its defaults are made faster."""
        if node_class is MatcherNode:
            parameters = {'image_area_px': IMAGE_AREA_PX, **parameters}
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = node_class(namespace=self._namespace, parameter_overrides=overrides)
        self._spinners.append(Spinner(node))
        return node

    def start_matcher(self, **parameters) -> MatcherNode:
        node = self.start(MatcherNode, **parameters)
        wait_until(lambda: node.lifecycle_label == 'active' or node.last_error)
        assert node.lifecycle_label == 'active', node.last_error
        outputs = node._outputs
        for publisher in (outputs.status, outputs.pose, outputs.matches):
            wait_until(lambda publisher=publisher: publisher.get_subscription_count() > 0)
        return node

    def start_map_server(self, **parameters) -> MapServerNode:
        return self.start(MapServerNode, **parameters)

    def spinner_of(self, node) -> Spinner:
        return next(spinner for spinner in self._spinners if spinner.node is node)

    def stop_node(self, node) -> None:
        spinner = self.spinner_of(node)
        self._spinners.remove(spinner)
        spinner.stop()

    def header(self, stamp_s: float | None = None) -> Header:
        """Header of the next image; images come every half second."""
        if stamp_s is None:
            self._stamp_s += 0.5
            stamp_s = self._stamp_s
        return Header(stamp=stamp_from_seconds(stamp_s), frame_id='camera_optical')

    def image(self, pixels: np.ndarray, stamp_s: float | None = None) -> Image:
        return encode_image(pixels, self.header(stamp_s))

    def send(self, image, info: CameraInfo | None = None) -> RelocalizationStatus:
        """Send one image and the calibration, and wait for the status of that image."""
        info = info or info_from_camera(CAMERA, image.header)
        talker = self.images if isinstance(image, Image) else self.compressed_images
        for _ in range(10):
            self.infos.publish(info)
            status = self.send_image_only(image, talker)
            # Topics keep no order between them: the image may have been first.
            if status.reason != RelocalizationStatus.NO_CAMERA_INFO:
                return status
        raise AssertionError('camera_info never arrived')

    def send_image_only(self, image, talker: Talker | None = None) -> RelocalizationStatus:
        self.statuses.clear()
        (talker or self.images).publish(image)
        return self.statuses.wait_for(lambda status: status.header == image.header)

    def call(self, service, name, **request):
        """Call a service and wait for its answer."""
        future = self.call_async(service, name, **request)
        wait_until(future.done)
        return future.result()

    def call_async(self, service, name, **request):
        client = self.node.create_client(service, name)
        assert client.wait_for_service(DEADLINE_S), f'no service {name}'
        return client.call_async(service.Request(**request))

    def change_state(self, name: str, transition: str) -> bool:
        """Ask a node for a transition of its life cycle; whether it went well."""
        request = Transition(id=getattr(Transition, f'TRANSITION_{transition.upper()}'))
        return self.call(ChangeState, f'{name}/change_state', transition=request).success

    def state_of(self, name: str) -> str:
        return self.call(GetState, f'{name}/get_state').current_state.label

    def forget_messages(self) -> None:
        for listener in (self.statuses, self.poses, self.matches):
            listener.clear()

    def close(self) -> None:
        for spinner in reversed(self._spinners):
            spinner.stop()
