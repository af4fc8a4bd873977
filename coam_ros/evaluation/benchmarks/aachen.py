"""Aachen Day-Night in hloc's layout: poses for the visual-localization benchmark.

DIR/images_upright (or DIR/images/images_upright)          images, db/ and query/
DIR/3D-models/aachen_v_1_1                                 COLMAP model of version 1.1, or
DIR/3D-models/aachen_cvpr2018_db.nvm, database_intrinsics.txt   that of version 1
DIR/queries/*_time_queries_with_intrinsics.txt             queries, by day and by night
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import logging
from pathlib import Path

from coam_ros.evaluation.benchmarks.localization import (
    relocalize_each,
    summarise_recalls,
)
from coam_ros.evaluation.data.image_pairs import BenchmarkDataError
from coam_ros.evaluation.data.localization_sets import LocalizationSet
from coam_ros.evaluation.files import write_file
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.evaluation.metrics.localization import is_within, recall_key
from coam_ros.geometry.transforms import (
    invert,
    make_transform,
    pose_error,
    quaternion_xyzw_from_rotation,
    rotation_from_quaternion_xyzw,
)
from coam_ros.mapping.importers.nvm import read_nvm
from coam_ros.mapping.importers.sfm_model import (
    is_colmap_model,
    read_query_cameras,
    SfmFrames,
    SfmImage,
)
from coam_ros.mapping.importers.text import read_lines
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching import CoamMatcher
import numpy as np
from numpy.typing import NDArray

# (m, deg) of the benchmark.
THRESHOLDS = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
# Retrieval is harder than in a room.
NUM_KEYFRAMES = 10
CONDITIONS = ('day', 'night')
PROTOCOL = (
    'Aachen Day-Night in the layout of hloc. Map: the images of the model with the points that '
    'they see, or (--triangulate) with those that COLMAP makes of the matches of each matcher '
    'between them. Retrieval by the global descriptors of our model for all matchers, or a list '
    'of pairs; our absolute pose (PoseLib, 12 px at 640 x 480, seed 0), no gates; a query without '
    'a pose takes that of the first retrieved image. Images at an area of 640 x 480 px; ours '
    'without the search of views. Recalls, of all queries of a condition, where true poses are '
    'given.'
)
_log = logging.getLogger(__name__)

_LISTS = 'queries/{}_time_queries_with_intrinsics.txt'
_IMAGE_FOLDERS = ('images_upright', 'images/images_upright')


@dataclass(frozen=True)
class AachenSet:
    """Aachen Day-Night, or a data set of the same layout.

    Attributes:
        data: its images; the poses of the queries are not known there.
        conditions: 'day' or 'night' by name of the query.
        T_map_camera_true: (4, 4) by name of the query's file, without folders; may be empty.
        retrieved: names of map images, best first, by name of the query; empty = own retrieval.
    """

    data: LocalizationSet
    conditions: Mapping[str, str]
    T_map_camera_true: Mapping[str, NDArray[np.float64]]
    retrieved: Mapping[str, Sequence[str]]


def open_aachen(
    directory: Path, truth: Path | None = None, pair_list: Path | None = None
) -> AachenSet:
    """Open a folder; reads no image.

    Args:
        directory: see above.
        truth: true poses in the form of a submission; None = not known.
        pair_list: query and map image a line, best first; None = own retrieval.

    Raises:
        FileNotFoundError: a file of the layout is missing.
        BenchmarkDataError: a list names what is not there.
        SfmModelError: a model or a list cannot be used, or an image is missing.
    """
    images = next((directory / f for f in _IMAGE_FOLDERS if (directory / f).is_dir()), None)
    if images is None:
        raise FileNotFoundError(
            f'{directory} has no folder {" or ".join(_IMAGE_FOLDERS)}, wanted the layout of hloc; '
            'check the path.'
        )
    queries: list[SfmImage] = []
    conditions = {}
    for condition in CONDITIONS:
        path = directory / _LISTS.format(condition)
        for name, camera in read_query_cameras(path).items():
            conditions[name] = condition
            nothing = (np.empty((0, 2), np.float32), np.empty((0, 3)), np.empty(0, np.int64))
            queries.append(SfmImage(name, camera, np.eye(4), *nothing))
    counts = Counter(Path(name).name for name in conditions)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise BenchmarkDataError(
            f'{directory}: several queries are called {", ".join(repeated[:3])}; wanted names of '
            'files that differ, since a submission names nothing else. Rename them.'
        )
    keyframes = SfmFrames(images, list(_read_model(directory).values()))
    return AachenSet(
        LocalizationSet(directory.resolve().name, keyframes, SfmFrames(images, queries)),
        conditions,
        {} if truth is None else _read_truth(truth, conditions),
        {} if pair_list is None else _read_retrieved(pair_list, conditions, keyframes.names),
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

    def look_up(name: str, _: object) -> list[object]:
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


def _read_truth(path: Path, known: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """Read poses in the form of a submission, by name of the file."""
    if not path.is_file():
        raise FileNotFoundError(f'No true poses {path}; check the path.')
    known_files = {Path(name).name for name in known}
    poses = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if not words or line.startswith('#'):
            continue
        try:
            qw, qx, qy, qz, *translation = (float(word) for word in words[1:])
            R = rotation_from_quaternion_xyzw((qx, qy, qz, qw))
            pose = invert(make_transform(R, translation))
        except ValueError as error:
            raise BenchmarkDataError(
                f'{path}, line {number}: got {line!r} ({error}), wanted name qw qx qy qz tx ty tz.'
            ) from error
        name = Path(words[0]).name
        if name not in known_files:
            raise BenchmarkDataError(
                f'{path}, line {number}: {words[0]} is no query of the lists; remove the line.'
            )
        poses[name] = pose
    return poses


def _read_retrieved(
    path: Path, queries: Mapping[str, str], keyframes: Sequence[str]
) -> dict[str, list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f'No pair list {path}; wanted a query and a map image a line.')
    known = set(keyframes)
    retrieved: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in queries or words[1] not in known:
            raise BenchmarkDataError(
                f'{path}, line {number}: got {line!r}, wanted the name of a query and of an image '
                'of the model; correct the line.'
            )
        retrieved.setdefault(words[0], []).append(words[1])
    if not retrieved:
        raise BenchmarkDataError(f'No pairs in {path}; wanted a query and a map image a line.')
    missing = [name for name in queries if name not in retrieved]
    if missing:
        _log.warning(
            '%s names no map image for %d of %d queries, such as %s: they count as lost.',
            path,
            len(missing),
            len(queries),
            missing[0],
        )
    return retrieved


def _read_model(directory: Path) -> dict[str, SfmImage]:
    models = directory / '3D-models'
    if is_colmap_model(models / 'aachen_v_1_1'):
        # COLMAP is an extra that version 1 does without.
        from coam_ros.mapping.importers.colmap import read_colmap_model

        return read_colmap_model(models / 'aachen_v_1_1')
    nvm = models / 'aachen_cvpr2018_db.nvm'
    if not nvm.is_file():
        raise FileNotFoundError(
            f'No model in {models}: wanted aachen_v_1_1 (COLMAP) or {nvm.name}; check the path.'
        )
    cameras = read_query_cameras(models / 'database_intrinsics.txt')
    return read_nvm(nvm, lambda name, _: cameras.get(name))
