"""3D for a map without depth images: points triangulated from matches of its own keyframes.

The poses of the keyframes are known and stay as they are. As hloc does it for maps of structure
from motion (Sarlin et al., CVPR 2019, section 4), with matches of a semi-dense matcher. Pixels
are those of an ideal camera whose image has an area of 640 x 480, so that all tolerances, ours and
COLMAP's, are what they are for the matcher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
import math

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.epipolar import fundamental_from_pose, sampson_distance_px
from coam_ros.geometry.image_views import resize_view
from coam_ros.geometry.transforms import invert
from coam_ros.mapping.colmap_database import triangulate
from coam_ros.mapping.errors import MapFormatError
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.mapping.retrieval import most_similar_pairs, NUM_NEIGHBOURS
from coam_ros.mapping.shared_keypoints import PairMatches, share_keypoints
from coam_ros.matching import Correspondences
import numpy as np
from numpy.typing import NDArray

Match = Callable[[Keyframe, Keyframe], Correspondences]

# Views turned further away from one another see hardly anything alike.
_MAX_VIEW_ANGLE_DEG = 75.0
# Neighbours are chosen among so many times as many similar ones, ever sparser down the list: the
# most similar keyframes of a dense recording stand too near for a depth.
_POOL = 4
# Of a match to the epipolar geometry of the poses, as hloc has it.
_MAX_EPIPOLAR_ERROR_PX = 4.0


def check_request(keyframe_map: KeyframeMap, num_neighbours: int) -> None:
    """Check what can be checked before any work.

    Raises:
        ValueError: fewer than one neighbour, or than two keyframes.
    """
    if num_neighbours < 1:
        raise ValueError(f'{num_neighbours} neighbours of each keyframe, wanted at least 1.')
    if len(keyframe_map) < 2:
        raise ValueError(f'A map of {len(keyframe_map)} keyframes, wanted at least 2 keyframes.')


def triangulate_landmarks(
    keyframe_map: KeyframeMap,
    match: Match,
    *,
    num_neighbours: int = NUM_NEIGHBOURS,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KeyframeMap:
    """Give the keyframes of a map landmarks that their matches with one another tell.

    Args:
        keyframe_map: with global descriptors, which choose the pairs to match; stays as it is.
        match: matches two keyframes, in pixels of their images.
        num_neighbours: keyframes that each one is matched with: similar ones among those that
            look the same way, within 75 degrees.
        num_threads: CPU threads of COLMAP; None takes all.
        progress: is called with (pairs matched, pairs to match).

    Returns:
        A new map, with the landmarks in the place of former ones; keyframes for which none were
        found have none. Depth images stay, and come before landmarks where they know something.

    Raises:
        ValueError: see `check_request`.
        MapFormatError: a keyframe has no global descriptor, or does not decode.
    """
    check_request(keyframe_map, num_neighbours)
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
        triangulate(
            shared,
            {name: _nominal_K(by_name[name].camera) for name in shared.keypoints},
            {name: invert(by_name[name].T_map_camera) for name in shared.keypoints},
            num_threads,
        )
        if shared.matches
        else {}
    )
    made = KeyframeMap(
        map_id=keyframe_map.map_id,
        frame_id=keyframe_map.frame_id,
        descriptor_model_id=keyframe_map.descriptor_model_id,
    )
    for name, keyframe in by_name.items():
        indices, points_map = points.get(name, (np.empty(0, np.int64), np.empty((0, 3))))
        has_any = len(indices) > 0
        pixels = _to_image(shared.keypoints[name][indices], keyframe.camera) if has_any else None
        made.add(
            replace(
                keyframe,
                landmark_pixels=pixels,
                landmark_points_map=points_map if has_any else None,
            )
        )
    return made


def _choose_pairs(keyframes: Sequence[Keyframe], num_neighbours: int) -> list[tuple[int, int]]:
    descriptors = [k.global_descriptor for k in keyframes if k.global_descriptor is not None]
    missing = [k.id for k in keyframes if k.global_descriptor is None]
    if missing:
        raise MapFormatError(
            f'Keyframe {missing[0]} and {len(missing) - 1} others have no global descriptor, '
            'which chooses what to match; compute them with `coam map describe`.'
        )
    axes_map = np.stack([keyframe.T_map_camera[:3, 2] for keyframe in keyframes])
    looks_alike = axes_map @ axes_map.T >= math.cos(math.radians(_MAX_VIEW_ANGLE_DEG))
    choose = partial(_spread_places, num_neighbours)
    return most_similar_pairs(np.stack(descriptors), choose, looks_alike)


def _spread_places(number: int, num_others: int) -> list[int]:
    """Choose places in a list of others, sparser towards its end: of 4 n ones about n."""
    if num_others <= number:
        return list(range(num_others))
    last = min(_POOL * number, num_others) - 1
    # A parabola whose slope begins with 1, so that no place comes twice.
    steps = np.arange(number)
    bend = (last - (number - 1)) / max(number - 1, 1) ** 2
    return np.rint(steps + bend * steps**2).astype(int).tolist()


def _verified(keyframe0: Keyframe, keyframe1: Keyframe, found: Correspondences) -> PairMatches:
    """Keep the matches that fit the poses, in nominal pixels."""
    camera0, camera1 = keyframe0.camera, keyframe1.camera
    points0, points1 = _to_nominal(found.points0, camera0), _to_nominal(found.points1, camera1)
    T_1_0 = invert(keyframe1.T_map_camera) @ keyframe0.T_map_camera
    fundamental = fundamental_from_pose(T_1_0, _nominal_K(camera0), _nominal_K(camera1))
    # NaN, of what the lens does not show or of equal places, is not less.
    fits = sampson_distance_px(points0, points1, fundamental) <= _MAX_EPIPOLAR_ERROR_PX
    nominal = replace(
        found, points0=points0.astype(np.float32), points1=points1.astype(np.float32)
    )
    names = (_name(keyframe0), _name(keyframe1))
    return PairMatches(
        names, (_nominal_size(camera0), _nominal_size(camera1)), nominal.select(fits)
    )


def _scale(camera: PinholeCamera) -> float:
    return 1.0 / camera.pixels_per_nominal


def _nominal_size(camera: PinholeCamera) -> tuple[int, int]:
    return math.ceil(camera.width * _scale(camera)), math.ceil(camera.height * _scale(camera))


def _nominal_K(camera: PinholeCamera) -> NDArray[np.float64]:  # noqa: N802 - K is of the field
    """Give K of the ideal camera with an image of nominal area; pixel centres stay centres."""
    return resize_view(_scale(camera)) @ camera.K


def _to_nominal(pixels: NDArray[np.float32], camera: PinholeCamera) -> NDArray[np.float64]:
    """Move pixels of the real image to where the nominal camera sees them."""
    return (camera.undistort(pixels) + 0.5) * _scale(camera) - 0.5


def _to_image(pixels: NDArray[np.float32], camera: PinholeCamera) -> NDArray[np.float32]:
    """Move pixels of the nominal camera to where the real image has them."""
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(_nominal_K(camera)).T
    return camera.project(rays).astype(np.float32)


def _name(keyframe: Keyframe) -> str:
    return str(keyframe.id)
