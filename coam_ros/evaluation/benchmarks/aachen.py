"""Aachen Day-Night: poses for the visual-localization benchmark, and their recalls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coam_ros.evaluation.benchmarks.localization import relocalize_each, summarise_recalls
from coam_ros.evaluation.data.aachen import AachenSet
from coam_ros.evaluation.files import write_file
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.metrics.localization import is_within, recall_key
from coam_ros.geometry.transforms import invert, pose_error, quaternion_xyzw_from_rotation
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import CoamMatcher
import numpy as np
from numpy.typing import NDArray

# (m, deg) of the benchmark.
THRESHOLDS = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
# Retrieval is harder than in a room.
NUM_KEYFRAMES = 10
PROTOCOL = (
    'Aachen Day-Night in the layout of hloc. Map: the images of the model with the points that '
    'they see, or (--triangulate) with those that COLMAP makes of the matches of each matcher '
    'between them. Retrieval by the global descriptors of our model for all matchers, or a list '
    'of pairs; our absolute pose (PoseLib, 12 px at 640 x 480, seed 0), no gates; a query without '
    'a pose takes that of the first retrieved image. Images at an area of 640 x 480 px; ours '
    'without the search of views. Recalls, of all queries of a condition, where true poses are '
    'given.'
)


def localize_aachen(
    aachen: AachenSet,
    keyframe_map: KeyframeMap,
    matcher: CachedMatcher,
    retrieval: CoamMatcher,
    num_keyframes: int,
    submission: Path,
) -> Iterator[dict[str, object]]:
    """Localize the queries, and write the poses when all are done.

    Args:
        aachen: the data set.
        keyframe_map: of its images, ids by their place.
        matcher: to measure.
        retrieval: whose global descriptors choose the keyframes, where no list does.
        num_keyframes: to match with each query.
        submission: file for the poses, as the benchmark takes it.

    Yields:
        For each query its outcome.
    """
    ids = {name: place for place, name in enumerate(aachen.data.keyframes.names)}

    def look_up(name: str, _: Keyframe) -> list[Keyframe]:
        names = aachen.retrieved.get(name, ())[:num_keyframes]
        return [keyframe_map.get(ids[other]) for other in names]

    poses = {}
    found = relocalize_each(
        aachen.data.queries,
        keyframe_map,
        matcher,
        retrieval,
        num_keyframes,
        choose=look_up if aachen.retrieved else None,
    )
    for _, result, costs in found:
        name, T_map_camera = costs['name'], result.T_map_camera
        # The best of a list: the relocalizer has ordered the listed ones by our descriptors.
        listed = [ids[other] for other in aachen.retrieved.get(name, ())]
        retrieved = listed or list(result.keyframe_ids)
        if T_map_camera is None and retrieved:
            T_map_camera = keyframe_map.get(retrieved[0]).T_map_camera
        file_name = Path(name).name
        if T_map_camera is not None:
            poses[file_name] = T_map_camera
        true = aachen.T_map_camera_true.get(file_name)
        outcome = {**costs, 'condition': aachen.conditions[name], 'is_within': {}}
        if true is not None:
            lost = (np.inf, np.inf)
            errors = lost if T_map_camera is None else pose_error(T_map_camera, true)
            outcome['translation_error_m'], outcome['rotation_error_deg'] = errors
            outcome['is_within'] = {
                f'{outcome["condition"]}_{recall_key(*limit)}': is_within(errors, limit)
                for limit in THRESHOLDS
            }
        yield outcome
    write_file(submission, _format_submission(poses).encode())


def summarise_aachen(outcomes: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Give the share of queries with a pose and, where the truth is known, the recalls."""
    has_pose = [outcome['no_pose'] is None for outcome in outcomes]
    return {'share_with_pose': float(np.mean(has_pose)), **summarise_recalls(outcomes)}


def _format_submission(poses: Mapping[str, NDArray[np.float64]]) -> str:
    """Write a line a query: file, quaternion w x y z and translation of the map in the camera."""
    lines = []
    for name, T_map_camera in poses.items():
        T_camera_map = invert(T_map_camera)
        x, y, z, w = quaternion_xyzw_from_rotation(T_camera_map[:3, :3]).tolist()
        numbers = [w, x, y, z, *T_camera_map[:3, 3].tolist()]
        lines.append(' '.join([name, *map(repr, numbers)]) + '\n')
    return ''.join(lines)
