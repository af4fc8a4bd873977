"""What an attempt to localize one image found out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class FailureReason(Enum):
    """Why an image was not localized, in the order in which the checks are made."""

    NO_KEYFRAMES = 'no_keyframes'
    TOO_FEW_MATCHES = 'too_few_matches'
    POSE_NOT_FOUND = 'pose_not_found'
    TOO_FEW_INLIERS = 'too_few_inliers'
    LOW_INLIER_RATIO = 'low_inlier_ratio'
    LOW_COVERAGE = 'low_coverage'
    HIGH_UNCERTAINTY = 'high_uncertainty'
    DISAGREES_WITH_PRIOR = 'disagrees_with_prior'


@dataclass(frozen=True, eq=False)
class KeyframeMatches:
    """Matches of the query with one keyframe; all arrays have one row a match, best first.

    Attributes:
        keyframe_id: in the map.
        query_pixels: (N, 2) float32.
        keyframe_pixels: (N, 2) float32.
        scores: (N,) float32.
        points_map: (N, 3) float64, landmarks in the map frame [m]; NaN where the keyframe knows
            no depth.
        inlier_mask: (N,) bool, whether the match agrees with the pose that was found, be it
            accepted or not; all False when none was found.
    """

    keyframe_id: int
    query_pixels: NDArray[np.float32]
    keyframe_pixels: NDArray[np.float32]
    scores: NDArray[np.float32]
    points_map: NDArray[np.float64]
    inlier_mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RelocalizationResult:
    """A pose with its evidence, or the reason why there is none, with the same evidence.

    Attributes:
        T_map_camera: (4, 4) float64, None when not localized.
        covariance: (6, 6) float64 as in `AbsolutePose`, with the map's own uncertainty; None
            when not localized.
        failure: None when localized.
        message: for people: the reason with its numbers and what to do; '' when localized.
        num_matches: with a known landmark, over all keyframes.
        num_inliers: of them.
        num_inlier_blocks: blocks of the image, 8 x 8 px at 640 x 480, that hold inliers: what
            counts as evidence, as inliers of several keyframes in one place see one thing.
        inlier_ratio: num_inliers / num_matches, 0 without matches.
        coverage: share of the image's cells that hold at least 5 of these blocks, 0..1.
        reprojection_error_px: median over the inliers; NaN without inliers.
        keyframe_ids: keyframes that were matched; the first is the most similar one.
        keyframe_matches: in the order of keyframe_ids.
        stage_durations_s: encode, retrieve, match, pose; only stages that were reached.
    """

    T_map_camera: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    failure: FailureReason | None = None
    message: str = ''
    num_matches: int = 0
    num_inliers: int = 0
    num_inlier_blocks: int = 0
    inlier_ratio: float = 0.0
    coverage: float = 0.0
    reprojection_error_px: float = float('nan')
    keyframe_ids: tuple[int, ...] = ()
    keyframe_matches: tuple[KeyframeMatches, ...] = ()
    stage_durations_s: dict[str, float] = field(default_factory=dict)

    @property
    def is_localized(self) -> bool:
        """Whether there is a pose."""
        return self.T_map_camera is not None
