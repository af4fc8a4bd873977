"""Aachen Day-Night in hloc's layout.

DIR/images_upright (or DIR/images/images_upright)          images, db/ and query/
DIR/3D-models/aachen_v_1_1                                 COLMAP model of version 1.1, or
DIR/3D-models/aachen_cvpr2018_db.nvm, database_intrinsics.txt   that of version 1
DIR/queries/*_time_queries_with_intrinsics.txt             queries, by day and by night
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import logging
from pathlib import Path

from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.lists import read_rows
from coam_ros.evaluation.data.localization_sets import LocalizationSet
from coam_ros.geometry.transforms import invert, make_transform, rotation_from_quaternion_xyzw
from coam_ros.mapping.importers.nvm import read_nvm
from coam_ros.mapping.importers.sfm_model import (
    is_colmap_model,
    read_query_cameras,
    SfmFrames,
    SfmImage,
)
import numpy as np
from numpy.typing import NDArray

CONDITIONS = ('day', 'night')
_LISTS = 'queries/{}_time_queries_with_intrinsics.txt'
_IMAGE_FOLDERS = ('images_upright', 'images/images_upright')
_log = logging.getLogger(__name__)


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


def _read_truth(path: Path, known: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """Read poses in the form of a submission, by name of the file."""
    known_files = {Path(name).name for name in known}
    poses = {}
    wanted = 'name qw qx qy qz tx ty tz'
    for place, words in read_rows(path, wanted):
        try:
            qw, qx, qy, qz, *translation = (float(word) for word in words[1:])
            R = rotation_from_quaternion_xyzw((qx, qy, qz, qw))
            pose = invert(make_transform(R, translation))
        except ValueError as error:
            raise BenchmarkDataError(
                f'{place}: got {" ".join(words)!r} ({error}), wanted {wanted}; correct the line.'
            ) from error
        name = Path(words[0]).name
        if name not in known_files:
            raise BenchmarkDataError(
                f'{place}: {words[0]} is no query of the lists; remove the line.'
            )
        poses[name] = pose
    return poses


def _read_retrieved(
    path: Path, queries: Mapping[str, str], keyframes: Sequence[str]
) -> dict[str, list[str]]:
    known = set(keyframes)
    retrieved: dict[str, list[str]] = {}
    wanted = 'the names of a query and of an image of the model'
    for place, words in read_rows(path, wanted):
        if len(words) != 2 or words[0] not in queries or words[1] not in known:
            raise BenchmarkDataError(
                f'{place}: got {" ".join(words)!r}, wanted {wanted}; correct the line.'
            )
        retrieved.setdefault(words[0], []).append(words[1])
    if not retrieved:
        raise BenchmarkDataError(f'No pairs in {path}; wanted {wanted} a line.')
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
