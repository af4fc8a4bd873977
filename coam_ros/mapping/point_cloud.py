"""The 3D that a keyframe knows, in the colours of its image: for pictures of a map."""

from __future__ import annotations

from coam_ros.mapping.keyframe import Keyframe
import numpy as np
from numpy.typing import NDArray


def make_point_cloud(
    keyframe: Keyframe, step_px: int
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Find the points behind a grid of pixels, and the landmarks.

    Args:
        keyframe: to look into.
        step_px: from one pixel of the grid to the next, at least 1.

    Returns:
        (N, 3) points in the map frame [m], and their colours (N, 3) RGB; N is 0 without 3D.

    Raises:
        MapFormatError: the image or the depth does not decode.
    """
    image = keyframe.decode_image()
    height, width = image.shape[:2]
    rows, columns = np.mgrid[step_px // 2 : height : step_px, step_px // 2 : width : step_px]
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    if keyframe.landmark_pixels is not None:
        pixels = np.concatenate([pixels, keyframe.landmark_pixels])
    points_map = keyframe.lift(pixels, keyframe.decode_depth_m())
    columns, rows = np.clip(pixels.round(), 0, (width - 1, height - 1)).astype(int).T
    is_known = np.isfinite(points_map).all(axis=1)
    return points_map[is_known], image[rows, columns][is_known]
