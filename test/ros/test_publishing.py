"""The messages of an attempt say what was found, each number in its field."""

from __future__ import annotations

from dataclasses import replace
import math

import numpy as np
import pytest

pytest.importorskip('rclpy')

from attempt_samples import EVIDENCE, make_attempt, matches_with
from coam_msgs.msg import RelocalizationStatus
from coam_ros.geometry.camera import PinholeCamera
from coam_ros.localization import LocalizationState, RelocalizationResult
from coam_ros.nodes.publishing import (
    building_message,
    match_messages,
    status_message,
    unanswered_message,
)
from map_samples import make_keyframe
from std_msgs.msg import Header


def test_status_holds_the_evidence_of_the_attempt():
    attempt = make_attempt()
    status = status_message(attempt, latency_s=0.75, num_dropped=4)
    assert status.header == attempt.header
    for name in ('num_matches', 'num_inliers', 'num_inlier_blocks', 'reprojection_error_px'):
        assert getattr(status, name) == EVIDENCE[name]
    assert (status.inlier_ratio, status.coverage) == (pytest.approx(0.8), 0.25)
    # Most similar first.
    assert list(status.keyframe_ids) == [5, 3]
    assert (status.stage_names, list(status.stage_durations_s)) == (
        ['encode', 'match'],
        [0.125, 0.5],
    )
    assert (status.latency_s, status.dropped_frames) == (0.75, 4)
    assert (status.engine_id, status.map_id, status.num_keyframes) == ('engine-1', 'map-2', 9)


def test_without_a_pose_there_is_no_reprojection_error():
    refused = make_attempt(RelocalizationStatus.BAD_IMAGE, result=RelocalizationResult())
    for status in (
        status_message(refused, latency_s=0.0, num_dropped=0),
        building_message(Header(), 'step 1'),
        unanswered_message(LocalizationState.LOST, RelocalizationStatus.NO_IMAGE, 'none came'),
    ):
        assert math.isnan(status.reprojection_error_px)


def test_matches_tell_the_sizes_of_both_images_and_skip_keyframes_that_are_gone():
    camera = PinholeCamera(64, 48, 60.0, 62.0, 31.0, 24.5)
    keyframes = {i: make_keyframe(id=i, camera=camera) for i in (3, 7)}
    result = replace(
        RelocalizationResult(), keyframe_matches=tuple(matches_with(i) for i in (3, 5, 7))
    )
    attempt = make_attempt(
        result=result, keyframes=keyframes, image=np.zeros((240, 320, 3), np.uint8)
    )
    messages = list(match_messages(attempt, 'map'))
    assert [matches.keyframe_id for matches in messages] == [3, 7]
    for matches in messages:
        assert (matches.query_width, matches.query_height) == (320, 240)
        assert (matches.keyframe_width, matches.keyframe_height) == (64, 48)
        assert (matches.map_frame_id, matches.engine_id) == ('map', 'engine-1')
        assert matches.header == attempt.header
