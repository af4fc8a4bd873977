"""Relocalization with the correspondences of any matcher and everything else ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from coam_ros.evaluation.benchmark_pairs import resize_for_matching
from coam_ros.evaluation.localization_report import evaluate_query, recall_key
from coam_ros.evaluation.matchers import MatcherError, no_correspondences
from coam_ros.evaluation.recorded_matcher import RecordedMatcher
from coam_ros.localization import LocalizationConfig, Relocalizer
from coam_ros.mapping.importers.seven_scenes import SevenScenesSequence
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import CoamMatcher, Correspondences, EncodedImage
import numpy as np
from numpy.typing import NDArray

THRESHOLDS = ((0.10, 5.0), (0.25, 10.0))
# Every pose counts: the gates are made for our matcher and would be another rule for each.
_NO_GATES = {
    'min_inliers': 6,
    'min_inlier_ratio': 0.0,
    'min_coverage': 0.0,
    'max_position_std_m': 100.0,
    'max_rotation_std_deg': 180.0,
}
PROTOCOL = (
    'Keyframes of map.txt, queries of query.txt. Retrieval by the global descriptors of our '
    'model for all matchers, keyframes lifted by their depth, our absolute pose (PoseLib, 12 px, '
    'seed 0), no gates: only the matches differ. Images at an area of 640 x 480 px.'
)


class MatcherForRelocalizer:
    """Stands where `Relocalizer` expects our matcher: our global descriptors, any matches.

    Attributes:
        durations_s: of the matcher, for each pair since `clear`.
        num_matches: the same.
        failures: what the matcher said of pairs on which it failed, since `clear`.
    """

    def __init__(self, matcher: RecordedMatcher, retrieval: CoamMatcher) -> None:
        """Combine a matcher with one whose global descriptors retrieve the keyframes."""
        self._matcher = matcher
        self._retrieval = retrieval
        self.clear()

    def clear(self) -> None:
        """Forget what was counted."""
        self.durations_s: list[float] = []
        self.num_matches: list[int] = []
        self.failures: list[str] = []

    @property
    def descriptor_model_id(self) -> str:
        """Identity of the global descriptors."""
        return self._retrieval.descriptor_model_id

    def encode(self, image: NDArray[np.uint8]) -> EncodedImage:
        """Keep the image as it goes to the matcher, with its global descriptor."""
        resized, resizing = resize_for_matching(image)
        descriptor = self._retrieval.encode(image).global_descriptor
        return EncodedImage({'image': resized}, descriptor, resizing)

    def match_encoded(
        self, query: EncodedImage, keyframes: Sequence[EncodedImage]
    ) -> list[Correspondences]:
        """Match a query with keyframes; pixels of the images as they were given to `encode`."""
        return [self._match(query, keyframe) for keyframe in keyframes]

    def _match(self, query: EncodedImage, keyframe: EncodedImage) -> Correspondences:
        try:
            found = self._matcher.match(query.features['image'], keyframe.features['image'])
        except MatcherError as error:
            self.failures.append(str(error))
            found = no_correspondences()
        self.durations_s.append(self._matcher.duration_s)
        self.num_matches.append(len(found))
        return Correspondences(
            query.resizing.to_image(found.points0),
            keyframe.resizing.to_image(found.points1),
            found.scores,
        )


def localize_queries(
    frames: SevenScenesSequence,
    every: int,
    keyframe_map: KeyframeMap,
    matcher: RecordedMatcher,
    retrieval: CoamMatcher,
    num_keyframes: int,
) -> Iterator[dict[str, object]]:
    """Localize every n-th frame.

    Args:
        frames: the queries.
        every: 1 for all of them.
        keyframe_map: with global descriptors of `retrieval`.
        matcher: to measure.
        retrieval: whose global descriptors choose the keyframes.
        num_keyframes: to match with each query.

    Yields:
        For each query its outcome; number of matches and time are means of its pairs.
    """
    adapter = MatcherForRelocalizer(matcher, retrieval)
    config = LocalizationConfig(num_keyframes=num_keyframes, **_NO_GATES)
    relocalizer = Relocalizer(adapter, keyframe_map, config)
    for index in range(0, len(frames), every):
        adapter.clear()
        frame = frames[index]
        result = relocalizer.relocalize(frame.decode_image(), frame.camera)
        outcome = evaluate_query(frames.names[index], result, frame.T_map_camera)
        yield {
            'name': outcome.name,
            'translation_error_m': outcome.translation_error_m,
            'rotation_error_deg': outcome.rotation_error_deg,
            'num_inliers': outcome.num_inliers,
            'num_matches': float(np.mean(adapter.num_matches or [0])),
            'duration_s': float(np.mean(adapter.durations_s or [0])),
            'keyframe_ids': list(outcome.keyframe_ids),
            'no_pose': outcome.failure,
            'failure': '; '.join(adapter.failures) or None,
        }


def summarise_queries(outcomes: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Give the recalls, of all queries, and the median errors, of those with a pose."""
    errors = np.array([(o['translation_error_m'], o['rotation_error_deg']) for o in outcomes])
    has_pose = np.isfinite(errors[:, 0])
    medians = np.median(errors[has_pose], axis=0) if has_pose.any() else (np.nan, np.nan)
    return {
        # NaN compares as False.
        **{
            recall_key(*limit): float((errors <= limit).all(axis=1).mean()) for limit in THRESHOLDS
        },
        'median_error_cm': 100 * float(medians[0]),
        'median_error_deg': float(medians[1]),
    }
