"""Retrieval that knows the truth: what a matcher can do where retrieval is not to blame."""

from __future__ import annotations

from collections.abc import Iterable

from coam_ros.geometry.transforms import invert, transform_points
from coam_ros.mapping.keyframe import Keyframe
import numpy as np
from numpy.typing import NDArray

# Points of a keyframe that are looked for in the query.
_COLUMNS, _ROWS = 16, 12


class OracleRetriever:
    """Ranks keyframes by how much of what they show a query sees, from how near and which side."""

    def __init__(self, keyframes: Iterable[Keyframe]) -> None:
        """Lift points of all keyframes.

        Args:
            keyframes: with depth or landmarks; those without come last.
        """
        self._keyframes = list(keyframes)
        self._points_map = [_sample_points(keyframe) for keyframe in self._keyframes]

    def retrieve(self, query: Keyframe, k: int) -> list[Keyframe]:
        """Give the k keyframes that share most with a query of known pose, best first."""
        shares = [
            shared_view(keyframe, points_map, query)
            for keyframe, points_map in zip(self._keyframes, self._points_map, strict=True)
        ]
        return [self._keyframes[i] for i in np.argsort(shares)[::-1][:k]]


def shared_view(keyframe: Keyframe, points_map: NDArray[np.float64], query: Keyframe) -> float:
    """Measure how alike two images show points.

    Args:
        keyframe: that the points belong to.
        points_map: (N, 3).
        query: of known pose.

    Returns:
        In [0, 1], mean of the points: 0 for one outside the query, else the cosine of the angle
        between both views of it (0 from 90 degrees on) times the ratio of its distances.
        Occlusion is not looked at.
    """
    if not len(points_map):
        return 0.0
    pixels = query.camera.project(transform_points(invert(query.T_map_camera), points_map))
    size = (query.camera.width, query.camera.height)
    is_seen = ((pixels > -0.5) & (pixels < np.subtract(size, 0.5))).all(axis=1)  # False for NaN
    rays = [points_map - frame.T_map_camera[:3, 3] for frame in (keyframe, query)]
    lengths = [np.linalg.norm(ray, axis=1) for ray in rays]
    cosines = (rays[0] * rays[1]).sum(axis=1) / np.maximum(lengths[0] * lengths[1], 1e-12)
    ratios = np.minimum(*lengths) / np.maximum(np.maximum(*lengths), 1e-12)
    return float(np.mean(is_seen * np.maximum(cosines, 0) * ratios))


def _sample_points(keyframe: Keyframe) -> NDArray[np.float64]:
    if keyframe.landmark_points_map is not None and keyframe.depth is None:
        # In no order that a step through them could fall into.
        order = np.random.default_rng(0).permutation(len(keyframe.landmark_points_map))
        return keyframe.landmark_points_map[order[: _COLUMNS * _ROWS]]
    columns = (np.arange(_COLUMNS) + 0.5) / _COLUMNS * keyframe.camera.width - 0.5
    rows = (np.arange(_ROWS) + 0.5) / _ROWS * keyframe.camera.height - 0.5
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    points_map = keyframe.lift(grid, keyframe.decode_depth_m())
    return points_map[np.isfinite(points_map).all(axis=1)]
