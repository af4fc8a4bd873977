"""Attempts made by hand, for what is told of them."""

from __future__ import annotations

from coam_msgs.msg import RelocalizationStatus
from coam_ros.localization import KeyframeMatches, LocalizationState, RelocalizationResult
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.nodes.attempt import Attempt
from coam_ros.nodes.conversions import stamp_from_seconds
import numpy as np
from std_msgs.msg import Header

# Every number is another one.
EVIDENCE = {
    'num_matches': 100,
    'num_inliers': 80,
    'num_inlier_blocks': 70,
    'inlier_ratio': 0.8,
    'coverage': 0.25,
    'reprojection_error_px': 1.5,
    'keyframe_ids': (5, 3),
    'stage_durations_s': {'encode': 0.125, 'match': 0.5},
}


def make_attempt(
    reason: int = RelocalizationStatus.NONE,
    state: LocalizationState = LocalizationState.LOCALIZED,
    **fields: object,
) -> Attempt:
    """With a pose where there is no reason for none."""
    values = {
        'header': Header(stamp=stamp_from_seconds(12.5), frame_id='camera_optical'),
        'state': state,
        'reason': reason,
        'message': '',
        'engine_id': 'engine-1',
        'keyframe_map': KeyframeMap(map_id='map-2'),
        'num_keyframes': 9,
        'result': RelocalizationResult(**EVIDENCE),
        'T_map_frame': np.eye(4) if reason == RelocalizationStatus.NONE else None,
        'covariance': np.eye(6) if reason == RelocalizationStatus.NONE else None,
    }
    return Attempt(**{**values, **fields})


def matches_with(keyframe_id: int) -> KeyframeMatches:
    pixels = np.array([[10.0, 20.0]], np.float32)
    return KeyframeMatches(
        keyframe_id, pixels, pixels, np.ones(1), np.ones((1, 3)), np.ones(1, bool)
    )
