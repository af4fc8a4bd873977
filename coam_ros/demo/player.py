"""Plays a scenario in real time into the real nodes, over topics, and records their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
import os
from pathlib import Path
import time

from coam_msgs.msg import Matches, RelocalizationStatus
from coam_ros.demo.child_node import ChildNode, own_transport
from coam_ros.demo.recording import Answer, Recording
from coam_ros.demo.scenario import LiveFrame, Scenario
from coam_ros.localization import FailureReason, RelocalizationResult
from coam_ros.nodes.conversions import (
    info_from_camera,
    matches_from_message,
    REASON_NAMES,
    STATE_NAMES,
    transform_from_pose,
)
from coam_ros.nodes.images import encode_image
from coam_ros.nodes.qos import events, sensor_data
from geometry_msgs.msg import PoseWithCovarianceStamped
import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

NAMESPACE = '/coam'
_CAMERA_FRAME = 'camera_optical_frame'
_STARTUP_TIMEOUT_S = 90.0
# Once the matcher answers from the map: how long the first pose may take before the play begins.
_FIRST_POSE_TIMEOUT_S = 10.0
_WARM_UP_PERIOD_S = 0.5
# After the last image, in multiples of the longest latency so far.
_LAST_ANSWER_LATENCIES = 3.0
_MIN_LAST_ANSWER_S = 3.0
_SPIN_S = 0.05

_FAILURES = {reason.value: reason for reason in FailureReason}

# (seconds, nanoseconds) of an image: what its answers carry.
_Stamp = tuple[int, int]


class PlayError(RuntimeError):
    """The nodes run, and yet nothing comes back; or ROS 2 itself fails here."""


def play(
    scenario: Scenario,
    map_directory: Path,
    log_directory: Path,
    progress: Callable[[int, str], None],
    model_path: Path | None = None,
) -> Recording:
    """Start map server and matcher, play the live frames, and stop the nodes.

    The camera stands at the first frame until the matcher has found it (or for ten seconds after
    the map has arrived); then the play begins. Images are sent when they are due, however busy
    the matcher is.

    Args:
        scenario: to play.
        map_directory: that the map server loads.
        log_directory: takes the logs of the nodes and the profile of their transport.
        progress: is called with the number of images sent and the latest state of the matcher.
        model_path: model folder; None for the default of the matcher.

    Returns:
        The answers to all images.

    Raises:
        NodeDiedError: when a node ends.
        PlayError: when the matcher does not answer, or ROS 2 fails in this process.
    """
    # Domains up to 101 leave the ports of ordinary programs alone.
    domain_id = 1 + os.getpid() % 100
    map_parameters = {'map_path': str(map_directory)}
    matcher_parameters: dict[str, str | float] = {**scenario.matcher_parameters}
    if model_path is not None:
        matcher_parameters['model_file_path'] = str(model_path)
    with own_transport(domain_id, log_directory):
        started_s = time.monotonic()
        with (
            _child('map_server', map_parameters, log_directory) as map_server,
            _child('matcher', matcher_parameters, log_directory) as matcher,
            _ros(domain_id) as (node, executor),
        ):
            player = _Player(scenario, node, executor, (map_server, matcher))
            startup_s = player.warm_up(started_s)
            num_dropped_before = player.last_status.dropped_frames
            sent_s, stamps = player.play(progress)
            last = player.last_status
            answers = [player.answer_of(stamp) for stamp in stamps]
            # The last image of the warm-up may be among those that the matcher counts.
            num_dropped = min(last.dropped_frames - num_dropped_before, answers.count(None))
            return Recording(
                sent_s=sent_s,
                answers=answers,
                startup_s=startup_s,
                engine_id=last.engine_id,
                num_keyframes=last.num_keyframes,
                num_dropped_by_matcher=num_dropped,
                matcher_memory_bytes=matcher.peak_memory_bytes(),
            )


def _child(name: str, parameters: Mapping[str, str | float], log_directory: Path) -> ChildNode:
    entry_point = f'coam_ros.nodes.{name}_node:main'
    return ChildNode(name, entry_point, NAMESPACE, parameters, log_directory / f'{name}.log')


@contextmanager
def _ros(domain_id: int) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    context = Context()
    try:
        # Ctrl-C stays Python's own.
        rclpy.init(
            context=context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO
        )
        node = Node('demo_camera', namespace=NAMESPACE, context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        yield node, executor
        executor.shutdown()
        node.destroy_node()
    except rclpy_implementation.RCLError as error:
        # rcl breaks its messages into lines.
        raise PlayError(
            f'ROS 2 fails: {" ".join(str(error).split())}, wanted a node of it in this process; '
            'source a ROS 2 that works, or use ./run demo.'
        ) from error
    finally:
        context.try_shutdown()


class _Player:
    """A camera node that also listens to the matcher."""

    def __init__(
        self,
        scenario: Scenario,
        node: Node,
        executor: SingleThreadedExecutor,
        children: tuple[ChildNode, ...],
    ) -> None:
        self._scenario = scenario
        self._node = node
        self._executor = executor
        self._children = children
        self._images = node.create_publisher(Image, 'image', sensor_data())
        self._infos = node.create_publisher(CameraInfo, 'camera_info', sensor_data())
        self.last_status: RelocalizationStatus | None = None
        self._last_status_s = 0.0
        self._statuses: dict[_Stamp, RelocalizationStatus] = {}
        self._poses: dict[_Stamp, PoseWithCovarianceStamped] = {}
        self._pose_ages_s: dict[_Stamp, float] = {}
        self._matches: dict[_Stamp, list[Matches]] = {}
        node.create_subscription(RelocalizationStatus, 'status', self._on_status, events(100))
        node.create_subscription(PoseWithCovarianceStamped, 'pose', self._on_pose, events(100))
        node.create_subscription(Matches, 'matches', self._on_matches, events(depth=20))

    def warm_up(self, started_s: float) -> float | None:
        """Stand at the first frame until the nodes are up.

        Building engines takes as long as it takes: no time counts meanwhile.

        Args:
            started_s: time.monotonic() at which the nodes were started.

        Returns:
            Seconds from there to the first pose; None when there was none in time.

        Raises:
            PlayError: when the matcher does not answer from the map.
        """
        deadline_s = started_s + _STARTUP_TIMEOUT_S
        answered_from_map = False
        next_s = 0.0
        while not self._has_pose():
            now_s = time.monotonic()
            status = self.last_status
            if status is not None and status.state == RelocalizationStatus.BUILDING:
                # A matcher that builds says so of every image; one that gave up says nothing more.
                deadline_s = self._last_status_s + _STARTUP_TIMEOUT_S
            elif status is not None and not answered_from_map and status.num_keyframes:
                answered_from_map = True
                deadline_s = now_s + _FIRST_POSE_TIMEOUT_S
            if now_s > deadline_s:
                if answered_from_map:
                    return None
                raise PlayError(self._explain_silence())
            if now_s >= next_s:
                next_s = now_s + _WARM_UP_PERIOD_S
                self._send(self._scenario.live_frames[0])
            self._spin_until(min(next_s, deadline_s), stop=self._has_pose)
        return time.monotonic() - started_s

    def play(self, progress: Callable[[int, str], None]) -> tuple[list[float], list[_Stamp]]:
        """Send all frames at their time, and wait for the last answer."""
        sent_s: list[float] = []
        stamps: list[_Stamp] = []
        frames = self._scenario.live_frames
        begun_s = time.monotonic()
        for index, frame in enumerate(frames):
            self._spin_until(begun_s + index / self._scenario.rate_hz)
            sent_s.append(time.monotonic() - begun_s)
            stamps.append(self._send(frame))
            progress(len(stamps), STATE_NAMES[self.last_status.state])
        latency_s = max(status.latency_s for status in self._statuses.values())
        wait_s = max(_MIN_LAST_ANSWER_S, _LAST_ANSWER_LATENCIES * latency_s)
        deadline_s = time.monotonic() + wait_s
        # The newest image wins, so the last one is answered, and as the last, unless DDS lost it.
        self._spin_until(deadline_s, stop=lambda: stamps[-1] in self._statuses)
        # Pose and matches of that image may come a moment after its status.
        self._spin_until(time.monotonic() + 10 * _SPIN_S)
        if not any(stamp in self._statuses for stamp in stamps):
            raise PlayError(self._explain_silence())
        return sent_s, stamps

    def _has_pose(self) -> bool:
        # Not the pose alone: its status may come after it.
        return any(stamp in self._statuses for stamp in self._poses)

    def answer_of(self, stamp: _Stamp) -> Answer | None:
        """Put together what came for an image."""
        status, pose = self._statuses.get(stamp), self._poses.get(stamp)
        T_map_camera = None if pose is None else transform_from_pose(pose.pose.pose)
        covariance = None if pose is None else np.reshape(pose.pose.covariance, (6, 6))
        if status is None:
            if pose is None:
                return None
            # A robot takes this pose for true, so it counts.
            message = 'A pose without a status.'
            result = RelocalizationResult(T_map_camera, covariance)
            return Answer('localized', 'none', message, self._pose_ages_s[stamp], result)
        reason = REASON_NAMES[status.reason]
        result = RelocalizationResult(
            T_map_camera=T_map_camera,
            covariance=covariance,
            failure=None if pose is not None else _FAILURES.get(reason),
            message=status.message,
            num_matches=status.num_matches,
            num_inliers=status.num_inliers,
            num_inlier_blocks=status.num_inlier_blocks,
            inlier_ratio=status.inlier_ratio,
            coverage=status.coverage,
            reprojection_error_px=status.reprojection_error_px,
            keyframe_ids=tuple(status.keyframe_ids),
            keyframe_matches=tuple(map(matches_from_message, self._matches.get(stamp, ()))),
            stage_durations_s=dict(
                zip(status.stage_names, map(float, status.stage_durations_s), strict=True)
            ),
        )
        return Answer(
            STATE_NAMES[status.state], reason, status.message, float(status.latency_s), result
        )

    def _send(self, frame: LiveFrame) -> _Stamp:
        image = frame.decode_image()
        stamp = self._node.get_clock().now().to_msg()
        header = Header(stamp=stamp, frame_id=_CAMERA_FRAME)
        self._infos.publish(info_from_camera(self._scenario.camera, header))
        self._images.publish(encode_image(image, header))
        return stamp.sec, stamp.nanosec

    def _spin_until(self, deadline_s: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Take messages until a time (of time.monotonic), or until `stop` says so."""
        while (left_s := deadline_s - time.monotonic()) > 0 and not stop():
            for child in self._children:
                child.check()
            self._executor.spin_once(timeout_sec=min(left_s, _SPIN_S))

    def _explain_silence(self) -> str:
        status = self.last_status
        if status is not None:
            said = f'its last status is {REASON_NAMES[status.reason]}: {status.message}'
        elif not self._images.get_subscription_count():
            said = 'it has not subscribed to the images, so it was not configured'
        else:
            said = 'it has not published a status'
        logs = ''.join(f'\nLog of {c.name}:\n{c.read_log_end()}' for c in self._children)
        return f'The matcher has localized nothing; {said}. The reason should be in its log.{logs}'

    def _on_status(self, message: RelocalizationStatus) -> None:
        self.last_status, self._last_status_s = message, time.monotonic()
        self._statuses[_stamp_of(message.header)] = message

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        stamp = _stamp_of(message.header)
        self._poses[stamp] = message
        age = self._node.get_clock().now() - Time.from_msg(message.header.stamp)
        self._pose_ages_s[stamp] = age.nanoseconds / 1e9

    def _on_matches(self, message: Matches) -> None:
        self._matches.setdefault(_stamp_of(message.header), []).append(message)


def _stamp_of(header: Header) -> _Stamp:
    return header.stamp.sec, header.stamp.nanosec
