"""3D for a map without depth images: points triangulated from matches of its own keyframes.

The poses of the keyframes are known and stay as they are. As hloc does it for maps of structure
from motion (Sarlin et al., CVPR 2019, section 4), with matches of a semi-dense matcher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
import math

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.epipolar import fundamental_from_pose, sampson_distance_px
from coam_ros.geometry.transforms import invert
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.retrieval import most_similar_pairs
from coam_ros.mapping.shared_keypoints import PairMatches, share_keypoints
from coam_ros.matching import Correspondences
import numpy as np
from numpy.typing import NDArray

Match = Callable[[Keyframe, Keyframe], Correspondences]
Progress = Callable[[int, int], None]

NUM_NEIGHBOURS = 20
# Views turned further away from one another see hardly anything alike.
_MAX_VIEW_ANGLE_DEG = 75.0
# Of a match to the epipolar geometry of the poses, at an area of 640 x 480: as hloc has it.
_MAX_EPIPOLAR_ERROR_PX = 4.0
_NOMINAL_AREA_PX = 640 * 480


def triangulate_landmarks(
    keyframe_map: KeyframeMap,
    match: Match,
    *,
    num_neighbours: int = NUM_NEIGHBOURS,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> KeyframeMap:
    """Give the keyframes of a map landmarks that their matches with one another tell.

    Args:
        keyframe_map: with global descriptors, which choose the pairs to match; stays as it is.
        match: matches two keyframes, in pixels of their images.
        num_neighbours: keyframes that each one is matched with: those most similar to it among
            those that look the same way, within 75 degrees.
        num_threads: CPU threads of COLMAP; None takes all.
        progress: is called with (pairs matched, pairs to match).

    Returns:
        A new map, with the landmarks in the place of former ones; keyframes for which none were
        found have none. Depth images stay, and come before landmarks where they know something.

    Raises:
        ValueError: fewer than one neighbour, or than two keyframes.
        MapFormatError: a keyframe has no global descriptor, or does not decode.
        ModuleNotFoundError: pycolmap is not installed.
    """
    # COLMAP is an extra.
    from coam_ros.mapping.colmap_database import triangulate

    keyframes = list(keyframe_map)
    pairs = _choose_pairs(keyframes, num_neighbours)
    matched = []
    for count, (i, j) in enumerate(pairs, start=1):
        matched.append(_verified(keyframes[i], keyframes[j], match(keyframes[i], keyframes[j])))
        if progress:
            progress(count, len(pairs))
    shared = share_keypoints([pair for pair in matched if len(pair.found)])
    by_name = {_name(keyframe): keyframe for keyframe in keyframes}
    # Nothing matched is nothing to triangulate.
    points = (
        {}
        if not shared.matches
        else triangulate(
            shared,
            {name: by_name[name].camera.K for name in shared.keypoints},
            {name: invert(by_name[name].T_map_camera) for name in shared.keypoints},
            num_threads,
        )
    )
    made = KeyframeMap(
        map_id=keyframe_map.map_id,
        frame_id=keyframe_map.frame_id,
        descriptor_model_id=keyframe_map.descriptor_model_id,
    )
    for name, keyframe in by_name.items():
        indices, points_map = points.get(name, (np.empty(0, np.int64), np.empty((0, 3))))
        has_any = len(indices) > 0
        pixels = _distort(shared.keypoints[name][indices], keyframe.camera) if has_any else None
        made.add(
            replace(
                keyframe,
                landmark_pixels=pixels,
                landmark_points_map=points_map if has_any else None,
            )
        )
    return made


def _choose_pairs(keyframes: Sequence[Keyframe], num_neighbours: int) -> list[tuple[int, int]]:
    if num_neighbours < 1:
        raise ValueError(f'{num_neighbours} neighbours of each keyframe, wanted at least 1.')
    if len(keyframes) < 2:
        raise ValueError(f'A map of {len(keyframes)} keyframes, wanted at least 2 keyframes.')
    descriptors = [k.global_descriptor for k in keyframes if k.global_descriptor is not None]
    missing = [k.id for k in keyframes if k.global_descriptor is None]
    if missing:
        raise MapFormatError(
            f'Keyframe {missing[0]} and {len(missing) - 1} others have no global descriptor, '
            'which chooses what to match; compute them with compute_descriptors.'
        )
    axes_map = np.stack([keyframe.T_map_camera[:3, 2] for keyframe in keyframes])
    looks_alike = axes_map @ axes_map.T >= math.cos(math.radians(_MAX_VIEW_ANGLE_DEG))
    return most_similar_pairs(np.stack(descriptors), num_neighbours, looks_alike)


def _verified(keyframe0: Keyframe, keyframe1: Keyframe, found: Correspondences) -> PairMatches:
    """Keep the matches that fit the poses, in pixels free of distortion."""
    camera0, camera1 = keyframe0.camera, keyframe1.camera
    points0, points1 = camera0.undistort(found.points0), camera1.undistort(found.points1)
    T_1_0 = invert(keyframe1.T_map_camera) @ keyframe0.T_map_camera
    fundamental = fundamental_from_pose(T_1_0, camera0.K, camera1.K)
    sizes = (camera0.width, camera0.height), (camera1.width, camera1.height)
    scale = math.sqrt(max(map(math.prod, sizes)) / _NOMINAL_AREA_PX)
    # NaN, of what the lens does not show or of equal places, is not less.
    fits = sampson_distance_px(points0, points1, fundamental) <= _MAX_EPIPOLAR_ERROR_PX * scale
    ideal = replace(found, points0=points0.astype(np.float32), points1=points1.astype(np.float32))
    return PairMatches((_name(keyframe0), _name(keyframe1)), sizes, ideal.select(fits))


def _distort(pixels: NDArray[np.float32], camera: PinholeCamera) -> NDArray[np.float32]:
    """Move pixels of an ideal camera to where the real image has them."""
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(camera.K).T
    return camera.project(rays).astype(np.float32)


def _name(keyframe: Keyframe) -> str:
    return str(keyframe.id)
