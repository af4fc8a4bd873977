"""The messages of an attempt."""

from __future__ import annotations

from collections.abc import Iterator

from coam_msgs.msg import Matches, RelocalizationStatus
from coam_ros.localization import LocalizationState
from coam_ros.nodes.attempt import Attempt
from coam_ros.nodes.conversions import float_array, matches_to_message, pose_with_covariance
from geometry_msgs.msg import PoseWithCovarianceStamped
from std_msgs.msg import Header

_STATES = {
    LocalizationState.SEARCHING: RelocalizationStatus.SEARCHING,
    LocalizationState.LOCALIZED: RelocalizationStatus.LOCALIZED,
    LocalizationState.LOST: RelocalizationStatus.LOST,
}


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
        inlier_ratio=float(result.inlier_ratio),
        coverage=float(result.coverage),
        reprojection_error_px=float(result.reprojection_error_px),
        keyframe_ids=[int(keyframe_id) for keyframe_id in result.keyframe_ids],
        stage_names=list(result.stage_durations_s),
        stage_durations_s=float_array(list(result.stage_durations_s.values())),
        latency_s=float(latency_s),
        dropped_frames=num_dropped,
        engine_id=attempt.engine_id,
        map_id=attempt.map_id,
        num_keyframes=attempt.num_keyframes,
    )
