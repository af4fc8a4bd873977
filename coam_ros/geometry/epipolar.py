"""Epipolar residuals of pixel pairs under a known relative pose."""

from __future__ import annotations

from coam_ros.geometry.transforms import skew
import numpy as np
from numpy.typing import ArrayLike, NDArray


def essential_from_pose(T_1_0: ArrayLike) -> NDArray[np.float64]:
    """Give E with x1^T E x0 = 0 for normalized coordinates of one point in cameras 0 and 1.

    Args:
        T_1_0: (4, 4), camera 0 to camera 1.

    Returns:
        (3, 3) float64; zero when the cameras share their centre.
    """
    T_1_0 = np.asarray(T_1_0, dtype=np.float64)
    return skew(T_1_0[:3, 3]) @ T_1_0[:3, :3]


def fundamental_from_pose(
    T_1_0: ArrayLike, intrinsics0: ArrayLike, intrinsics1: ArrayLike
) -> NDArray[np.float64]:
    """Give F with p1^T F p0 = 0 for pixels of one point in images 0 and 1.

    Args:
        T_1_0: (4, 4), camera 0 to camera 1.
        intrinsics0: (3, 3).
        intrinsics1: (3, 3).

    Returns:
        (3, 3) float64.
    """
    to_ray0 = np.linalg.inv(np.asarray(intrinsics0, dtype=np.float64))
    to_ray1 = np.linalg.inv(np.asarray(intrinsics1, dtype=np.float64))
    return to_ray1.T @ essential_from_pose(T_1_0) @ to_ray0


def symmetric_epipolar_distance_px(
    points0: ArrayLike, points1: ArrayLike, fundamental: ArrayLike
) -> NDArray[np.float64]:
    """Measure the larger of the two distances of each pair to its epipolar lines.

    Args:
        points0: (N, 2) pixels of image 0, without distortion.
        points1: (N, 2) pixels of image 1, without distortion.
        fundamental: (3, 3), p1^T F p0 = 0.

    Returns:
        (N,) float64 [px]; NaN where there is no epipolar line (at the epipole, or all zero).
    """
    algebraic, lines1, lines0 = _residual_and_lines(points0, points1, fundamental)
    with np.errstate(divide='ignore', invalid='ignore'):
        distance1 = algebraic / np.linalg.norm(lines1[:, :2], axis=1)
        distance0 = algebraic / np.linalg.norm(lines0[:, :2], axis=1)
    distances = np.maximum(np.abs(distance0), np.abs(distance1))
    return np.where(np.isfinite(distances), distances, np.nan)


def sampson_distance_px(
    points0: ArrayLike, points1: ArrayLike, fundamental: ArrayLike
) -> NDArray[np.float64]:
    """Measure how far each pair has to move, to first order, to satisfy the epipolar geometry.

    Hartley and Zisserman, Multiple View Geometry, eq. 11.9 (its square root).

    Args:
        points0: (N, 2) pixels of image 0, without distortion.
        points1: (N, 2) pixels of image 1, without distortion.
        fundamental: (3, 3), p1^T F p0 = 0.

    Returns:
        (N,) float64 [px]; NaN where it is not defined (all zero).
    """
    algebraic, lines1, lines0 = _residual_and_lines(points0, points1, fundamental)
    gradient = np.sqrt((lines1[:, :2] ** 2).sum(axis=1) + (lines0[:, :2] ** 2).sum(axis=1))
    with np.errstate(divide='ignore', invalid='ignore'):
        distances = np.abs(algebraic) / gradient
    return np.where(np.isfinite(distances), distances, np.nan)


def _residual_and_lines(
    points0: ArrayLike, points1: ArrayLike, fundamental: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Give p1^T F p0 (N,), and the lines F p0 in image 1 and F^T p1 in image 0, (N, 3)."""
    fundamental = np.asarray(fundamental, dtype=np.float64)
    homogeneous0 = _homogeneous(points0)
    homogeneous1 = _homogeneous(points1)
    lines1 = homogeneous0 @ fundamental.T
    lines0 = homogeneous1 @ fundamental
    return (homogeneous1 * lines1).sum(axis=1), lines1, lines0


def _homogeneous(points: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return np.column_stack([points, np.ones(len(points))])
