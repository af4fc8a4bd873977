"""From posed images to a map: which of them become keyframes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.keyframe_map import KeyframeMap
from coam_ros.matching.image_matcher import ImageMatcher
import numpy as np


def build_map(
    frames: Iterable[Keyframe],
    matcher: ImageMatcher,
    *,
    min_distance_m: float = 0.0,
    min_angle_deg: float = 0.0,
    frame_id: str = 'map',
    progress: Callable[[int], None] | None = None,
) -> KeyframeMap:
    """Make a map from posed frames.

    A frame becomes a keyframe when no keyframe so far is both closer than `min_distance_m` and
    turned by less than `min_angle_deg`. With either at 0 every frame does.

    Args:
        frames: for example of an importer; read one at a time.
        matcher: computes the global descriptors.
        min_distance_m: spacing of the positions [m].
        min_angle_deg: spacing of the orientations [deg].
        frame_id: name of the map frame.
        progress: is called with the number of frames looked at so far.

    Returns:
        The map; empty for no frames.

    Raises:
        ValueError: a spacing below 0.
        MapFormatError: a frame that does not decode.
    """
    if not (min_distance_m >= 0 and min_angle_deg >= 0):
        raise ValueError(
            f'Keyframe spacing of {min_distance_m} m and {min_angle_deg} deg, wanted at least 0; '
            'correct the spacing'
        )
    keyframe_map = KeyframeMap(frame_id=frame_id, descriptor_model_id=matcher.descriptor_model_id)
    poses: list[np.ndarray] = []
    for count, frame in enumerate(frames, start=1):
        if not is_covered(frame.T_map_camera, poses, min_distance_m, min_angle_deg):
            descriptor = matcher.encode(frame.decode_image()).global_descriptor
            keyframe_map.add(frame.with_descriptor(descriptor))
            poses.append(frame.T_map_camera)
        if progress:
            progress(count)
    return keyframe_map


def is_covered(
    T_map_camera: np.ndarray, poses: list[np.ndarray], distance_m: float, angle_deg: float
) -> bool:
    """Tell whether one of some poses is closer than a distance and turned by less than an angle.

    Args:
        T_map_camera: (4, 4).
        poses: of the keyframes so far, (4, 4) each.
        distance_m: 0 = nothing is close.
        angle_deg: the same.
    """
    if not poses or distance_m == 0 or angle_deg == 0:
        return False
    others = np.stack(poses)
    distances_m = np.linalg.norm(others[:, :3, 3] - T_map_camera[:3, 3], axis=1)
    # trace(R_a^T R_b) = 1 + 2 cos(angle between them)
    cosines = (np.einsum('nij,ij->n', others[:, :3, :3], T_map_camera[:3, :3]) - 1) / 2
    angles_deg = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return bool(((distances_m < distance_m) & (angles_deg < angle_deg)).any())
