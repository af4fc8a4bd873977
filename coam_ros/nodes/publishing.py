"""The messages of an attempt."""

from __future__ import annotations

from collections.abc import Iterator

from builtin_interfaces.msg import Time
from coam_msgs.msg import Matches, RelocalizationStatus
from coam_ros.localization import LocalizationState
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.nodes import interfaces
from coam_ros.nodes.attempt import Attempt
from coam_ros.nodes.conversions import float_array, matches_to_message, pose_with_covariance
from coam_ros.nodes.visualization import (
    debug_image_message,
    keyframe_poses_message,
    landmarks_message,
)
from geometry_msgs.msg import PoseWithCovarianceStamped
import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from std_msgs.msg import Header

_STATES = {
    LocalizationState.SEARCHING: RelocalizationStatus.SEARCHING,
    LocalizationState.LOCALIZED: RelocalizationStatus.LOCALIZED,
    LocalizationState.LOST: RelocalizationStatus.LOST,
}


class Outputs:
    """The matcher's publishers of what it found out.

    Attributes:
        pose: of POSE.
        status: of STATUS.
        matches: of MATCHES.
    """

    def __init__(self, node: LifecycleNode) -> None:
        """Advertise the topics."""
        self._node = node
        self.pose = self._advertise(interfaces.POSE)
        self.status = self._advertise(interfaces.STATUS)
        self.matches = self._advertise(interfaces.MATCHES)
        self._debug_image = self._advertise(interfaces.DEBUG_IMAGE)
        self._landmarks = self._advertise(interfaces.LANDMARKS)
        self._keyframe_poses = self._advertise(interfaces.KEYFRAME_POSES)
        self._has_pose = False
        # What keyframe_poses shows.
        self._shown_poses: list[NDArray[np.float64]] | None = None

    def _advertise(self, topic: interfaces.Topic) -> LifecyclePublisher:
        return self._node.create_lifecycle_publisher(topic.type, topic.name, topic.profile())

    def forget_pose(self) -> None:
        """Take back the pose that is kept for who comes later: it is of another map, or time."""
        # Where ROS ends, all publishers do.
        if not (self._has_pose and self._node.context.ok()):
            return
        # What a publisher keeps goes with it alone.
        is_activated = self.pose.is_activated
        self._node.destroy_lifecycle_publisher(self.pose)
        self.pose = self._advertise(interfaces.POSE)
        if is_activated:
            self.pose.on_activate(None)
        self._has_pose = False

    def publish(self, attempt: Attempt, status: RelocalizationStatus, map_frame: str) -> None:
        """Publish an attempt; pictures of it only for who looks."""
        for matches in match_messages(attempt, map_frame):
            self.matches.publish(matches)
        pose = pose_message(attempt, map_frame)
        if pose is not None:
            self.pose.publish(pose)
            self._has_pose = True
        self.status.publish(status)
        if self._debug_image.get_subscription_count():
            picture = debug_image_message(attempt)
            if picture is not None:
                self._debug_image.publish(picture)
        if self._landmarks.get_subscription_count():
            cloud = landmarks_message(attempt, map_frame)
            if cloud is not None:
                self._landmarks.publish(cloud)

    def publish_keyframe_poses(
        self, keyframe_map: KeyframeMap, map_frame: str, stamp: Time
    ) -> None:
        """Publish where the keyframes are, once for each change of that and for who looks."""
        publisher = self._keyframe_poses
        if not (publisher.is_activated and publisher.get_subscription_count()):
            return
        keyframes = list(keyframe_map)
        # A keyframe that only got its descriptor still holds the same array.
        poses = [keyframe.T_map_camera for keyframe in keyframes]
        if self._shown_poses is None or not _are_same(poses, self._shown_poses):
            self._shown_poses = poses
            publisher.publish(keyframe_poses_message(keyframes, map_frame, stamp))


def _are_same(some: list[NDArray[np.float64]], others: list[NDArray[np.float64]]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def pose_message(attempt: Attempt, map_frame: str) -> PoseWithCovarianceStamped | None:
    """Make the pose of an attempt, or None when there is none to publish."""
    if attempt.T_map_frame is None:
        return None
    header = Header(stamp=attempt.header.stamp, frame_id=map_frame)
    return pose_with_covariance(attempt.T_map_frame, attempt.covariance, header)


def match_messages(attempt: Attempt, map_frame: str) -> Iterator[Matches]:
    """Make a message for each matched keyframe that is still in the map."""
    for matches in attempt.result.keyframe_matches:
        keyframe = attempt.keyframes.get(matches.keyframe_id)
        if keyframe is None:
            continue
        height, width = attempt.image.shape[:2]
        yield matches_to_message(
            matches,
            attempt.header,
            map_frame_id=map_frame,
            engine_id=attempt.engine_id,
            query_size=(width, height),
            keyframe_size=(keyframe.camera.width, keyframe.camera.height),
        )


def building_message(header: Header, progress: str) -> RelocalizationStatus:
    """Make the status of an image that came before the engine was ready."""
    return RelocalizationStatus(
        header=header,
        state=RelocalizationStatus.BUILDING,
        reason=RelocalizationStatus.NO_ENGINE,
        message=f'The engine is not ready: {progress}.',
        reprojection_error_px=float('nan'),
    )


def unanswered_message(
    state: LocalizationState, reason: int, message: str
) -> RelocalizationStatus:
    """Make the status of an attempt that was not made."""
    return RelocalizationStatus(
        state=_STATES[state],
        reason=reason,
        message=message,
        reprojection_error_px=float('nan'),
    )


def status_message(
    attempt: Attempt, *, latency_s: float, num_dropped: int
) -> RelocalizationStatus:
    """Make the status of an attempt.

    Args:
        attempt: to describe.
        latency_s: from the stamp of the image until now [s].
        num_dropped: images dropped since the node was activated.
    """
    result = attempt.result
    return RelocalizationStatus(
        header=attempt.header,
        state=_STATES[attempt.state],
        reason=attempt.reason,
        message=attempt.message,
        num_matches=result.num_matches,
        num_inliers=result.num_inliers,
        num_inlier_blocks=result.num_inlier_blocks,
        inlier_ratio=float(result.inlier_ratio),
        coverage=float(result.coverage),
        reprojection_error_px=float(result.reprojection_error_px),
        keyframe_ids=[int(keyframe_id) for keyframe_id in result.keyframe_ids],
        stage_names=list(result.stage_durations_s),
        stage_durations_s=float_array(list(result.stage_durations_s.values())),
        latency_s=float(latency_s),
        dropped_frames=num_dropped,
        engine_id=attempt.engine_id,
        map_id=attempt.keyframe_map.map_id,
        num_keyframes=attempt.num_keyframes,
    )
