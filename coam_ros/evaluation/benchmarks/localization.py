"""Relocalization with the correspondences of any matcher and everything else ours."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from coam_ros.evaluation.benchmarks.matching import match_images, to_images
from coam_ros.evaluation.benchmarks.oracle_retrieval import OracleRetriever
from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.image_pairs import resize_for_matching
from coam_ros.evaluation.data.localization_sets import each, LocalizationSet, PosedFrames
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.metrics.localization import (
    evaluate_query,
    is_within,
    recall,
    recall_key,
)
from coam_ros.evaluation.metrics.statistics import mean_of_known
from coam_ros.localization import LocalizationConfig, RelocalizationResult, Relocalizer
from coam_ros.mapping.builder import build_map
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import CoamMatcher, Correspondences
from coam_ros.matching.preprocessing import Resizing
import numpy as np
from numpy.typing import NDArray

# (m, deg)
THRESHOLDS = ((0.10, 5.0), (0.25, 10.0))
# Every pose counts: the gates are made for our matcher and would be another rule for each.
NO_GATES = {
    'min_inliers': 6,
    'min_inlier_ratio': 0.0,
    'min_coverage': 0.0,
    'max_position_std_m': 100.0,
    'max_rotation_std_deg': 180.0,
}
# Queries that follow each other see one place: what is hard for one is hard for the next. On
# redkitchen the logarithms of their errors correlate by 0.7.
_QUERIES_ALIKE = 5
PROTOCOL = (
    'Retrieval by the global descriptors of our model for all matchers, or by the true pose (the '
    'views that share most); keyframes lifted by their depth or landmarks, or (--triangulate) by '
    'what COLMAP makes of the matches of each matcher between the map images, at their poses; our '
    'absolute pose (PoseLib, 12 px at 640 x 480, seed 0), no gates: only the matches differ. '
    'Images at an area of 640 x 480 px; ours without the search of views, but aligned both ways, '
    'as of pairs: on the robot one way, with half of the matches (coam localize measures that). '
    'Errors: medians of all queries, a query without a pose counting as lost.'
)


def parse_threshold(text: str) -> tuple[float, float]:
    """Read 'metres,degrees'.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    try:
        metres, degrees = (float(word) for word in text.split(','))
    except ValueError:
        metres = degrees = 0.0
    if not (metres > 0 and degrees > 0):
        raise argparse.ArgumentTypeError(f'got {text!r}, wanted metres,degrees such as 0.25,2')
    return metres, degrees


@dataclass(frozen=True, eq=False)
class ResizedImage:
    """An image with what localization needs of it; an `Encoded` of `MatcherForRelocalizer`.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, as it goes to the matcher.
        global_descriptor: (D,) float32 of unit norm, for retrieval.
        resizing: the way back to the image.
    """

    pixels: NDArray[np.uint8]
    global_descriptor: NDArray[np.float32]
    resizing: Resizing

    @property
    def num_bytes(self) -> int:
        """Memory that it takes [bytes]."""
        return self.pixels.nbytes + self.global_descriptor.nbytes


class MatcherForRelocalizer:
    """An `ImageMatcher` of our global descriptors and the matches of any matcher.

    Attributes:
        durations_s: of the matcher, for each pair since `clear`; None where matches were kept.
        num_matches: the same.
        failures: what the matcher said of pairs on which it failed, since `clear`.
    """

    def __init__(self, matcher: CachedMatcher, retrieval: CoamMatcher) -> None:
        """Combine a matcher with one whose global descriptors retrieve the keyframes."""
        self._matcher = matcher
        self._retrieval = retrieval
        self.clear()

    def clear(self) -> None:
        """Forget what was counted."""
        self.durations_s: list[float | None] = []
        self.num_matches: list[int] = []
        self.failures: list[str] = []

    @property
    def descriptor_model_id(self) -> str:
        """Identity of the global descriptors."""
        return self._retrieval.descriptor_model_id

    def encode(self, image: NDArray[np.uint8]) -> ResizedImage:
        """Keep the image as it goes to the matcher, with its global descriptor."""
        resized, resizing = resize_for_matching(image)
        descriptor = self._retrieval.encode(image).global_descriptor
        return ResizedImage(resized, descriptor, resizing)

    def match_encoded(
        self, query: ResizedImage, keyframes: Sequence[ResizedImage]
    ) -> list[Correspondences]:
        """Match a query with keyframes; pixels of the images as they were given to `encode`."""
        return [self._match(query, keyframe) for keyframe in keyframes]

    def _match(self, query: ResizedImage, keyframe: ResizedImage) -> Correspondences:
        found, failure = self._matcher.match_or_fail(query.pixels, keyframe.pixels)
        if failure is not None:
            self.failures.append(failure)
        self.durations_s.append(self._matcher.duration_s)
        self.num_matches.append(len(found))
        return to_images(found, query.resizing, keyframe.resizing)


def build_localization_map(
    data: LocalizationSet, retrieval: CoamMatcher, *, needs_3d: bool = True
) -> KeyframeMap:
    """Make the map of a data set.

    Args:
        data: the data set.
        retrieval: computes the global descriptors.
        needs_3d: whether the images must come with depth or landmarks.

    Raises:
        BenchmarkDataError: none of its images has depth or landmarks, and they are needed.
        ValueError: an image or a pose cannot be used.
    """
    keyframe_map = build_map(each(data.keyframes), retrieval)
    if needs_3d and not any(
        k.depth is not None or k.landmark_pixels is not None for k in keyframe_map
    ):
        raise BenchmarkDataError(
            f'{data.name}: none of the {len(keyframe_map)} map images has depth or landmarks '
            f'(such as {data.keyframes.names[0]}), wanted 3D for some; bring the depth images, '
            'or take coam bench --triangulate.'
        )
    return keyframe_map


def triangulate_map(
    keyframe_map: KeyframeMap,
    matcher: CachedMatcher,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[KeyframeMap, list[str]]:
    """Make the map that a matcher's own matches of the map images tell, at the given poses.

    Args:
        keyframe_map: with global descriptors, which choose the pairs; its depth and landmarks are
            not looked at.
        matcher: to measure; a pair on which it fails has no matches.
        num_threads: CPU threads of COLMAP; None takes all.
        progress: is called with (pairs matched, pairs to match).

    Returns:
        The map, and what the matcher said of pairs on which it failed.
    """
    # COLMAP is an extra.
    from coam_ros.mapping.triangulation import triangulate_landmarks

    failures: list[str] = []
    bare = KeyframeMap(
        (replace(k, depth=None) for k in keyframe_map),
        descriptor_model_id=keyframe_map.descriptor_model_id,
    )

    def match(keyframe0: Keyframe, keyframe1: Keyframe) -> Correspondences:
        images = (keyframe.decode_image() for keyframe in (keyframe0, keyframe1))
        found, failure = match_images(matcher, *images)
        if failure is not None:
            failures.append(f'map images {keyframe0.id} and {keyframe1.id}: {failure}')
        return found

    made = triangulate_landmarks(bare, match, num_threads=num_threads, progress=progress)
    return made, failures


def localize_queries(
    queries: PosedFrames,
    keyframe_map: KeyframeMap,
    matcher: CachedMatcher,
    retrieval: CoamMatcher,
    num_keyframes: int,
    *,
    oracle: OracleRetriever | None = None,
    thresholds: Sequence[tuple[float, float]] = THRESHOLDS,
) -> Iterator[dict[str, object]]:
    """Localize queries and compare their poses with the truth.

    Args:
        queries: with their true poses.
        keyframe_map: as of `relocalize_each`.
        matcher: to measure.
        retrieval: as of `relocalize_each`.
        num_keyframes: to match with each query.
        oracle: chooses the keyframes instead, of the same map.
        thresholds: (m, deg) of the recalls.

    Yields:
        For each query its outcome.
    """

    def ask_oracle(_: str, query: Keyframe) -> list[Keyframe]:
        return oracle.retrieve(query, num_keyframes)

    found = relocalize_each(
        queries,
        keyframe_map,
        matcher,
        retrieval,
        num_keyframes,
        choose=None if oracle is None else ask_oracle,
    )
    for query, result, costs in found:
        outcome = evaluate_query(costs['name'], result, query.T_map_camera)
        yield {
            **costs,
            'translation_error_m': outcome.translation_error_m,
            'rotation_error_deg': outcome.rotation_error_deg,
            'is_within': {
                recall_key(*limit): is_within(outcome.errors, limit) for limit in thresholds
            },
        }


def relocalize_each(
    queries: PosedFrames,
    keyframe_map: KeyframeMap,
    matcher: CachedMatcher,
    retrieval: CoamMatcher,
    num_keyframes: int,
    *,
    choose: Callable[[str, Keyframe], Sequence[Keyframe]] | None = None,
) -> Iterator[tuple[Keyframe, RelocalizationResult, dict[str, object]]]:
    """Localize queries.

    Args:
        queries: their poses are not looked at.
        keyframe_map: with global descriptors of `retrieval`.
        matcher: whose matches make the poses.
        retrieval: whose global descriptors choose the keyframes.
        num_keyframes: to match with each query.
        choose: gives the keyframes, of the same map, for the name of a query and the query
            instead.

    Yields:
        The query, what came out, and JSON-ready what each outcome has; there number of matches
        and time are means of the query's pairs.
    """
    adapter = MatcherForRelocalizer(matcher, retrieval)
    config = LocalizationConfig(num_keyframes=num_keyframes, **NO_GATES)
    searched = (
        keyframe_map
        if choose is None
        else KeyframeMap(descriptor_model_id=keyframe_map.descriptor_model_id)
    )
    relocalizer = Relocalizer(adapter, searched, config)
    for number, (name, query) in enumerate(zip(queries.names, each(queries), strict=True)):
        adapter.clear()
        if choose is not None:
            _hold_only(searched, choose(name, query))
        result = relocalizer.relocalize(query.decode_image(), query.camera)
        yield (
            query,
            result,
            {
                'name': name,
                'group': number // _QUERIES_ALIKE,
                'num_inliers': result.num_inliers,
                'num_matches_with_3d': result.num_matches,
                'num_matches': float(np.mean(adapter.num_matches or [0])),
                'duration_s': mean_of_known(adapter.durations_s),
                'keyframe_ids': list(result.keyframe_ids),
                'no_pose': None if result.failure is None else result.failure.value,
                'failure': '; '.join(adapter.failures) or None,
            },
        )


def _hold_only(keyframe_map: KeyframeMap, keyframes: Sequence[Keyframe]) -> None:
    for former in keyframe_map:
        keyframe_map.remove(former.id)
    for keyframe in keyframes:
        keyframe_map.add(keyframe)


def summarise_queries(outcomes: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Give the recalls and the median errors of all queries; one without a pose is lost."""
    columns = [(o['translation_error_m'], o['rotation_error_deg']) for o in outcomes]
    errors = np.array(columns, dtype=np.float64)  # null, as JSON has it, becomes NaN
    medians = np.median(np.where(np.isfinite(errors), errors, np.inf), axis=0)
    return {
        **summarise_recalls(outcomes),
        'median_error_cm': 100 * float(medians[0]),
        'median_error_deg': float(medians[1]),
    }


def summarise_recalls(outcomes: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Give the recall for every key of `is_within`, of the queries that have it."""
    by_key: dict[str, list[bool]] = {}
    for outcome in outcomes:
        for key, is_right in outcome['is_within'].items():
            by_key.setdefault(key, []).append(is_right)
    return {key: recall(answers) for key, answers in by_key.items()}
