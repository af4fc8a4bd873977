"""Rigid transforms as (4, 4) float64 matrices: T_a_b takes points in b to points in a."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def make_transform(R: ArrayLike, t: ArrayLike) -> NDArray[np.float64]:
    """Join a rotation and a translation.

    Args:
        R: (3, 3), R_a_b.
        t: (3,), origin of b in a [m].

    Returns:
        (4, 4) float64, T_a_b.
    """
    T_a_b = np.eye(4)
    T_a_b[:3, :3] = R
    T_a_b[:3, 3] = t
    return T_a_b


def invert(T_a_b: ArrayLike) -> NDArray[np.float64]:
    """Invert a rigid transform.

    Args:
        T_a_b: (4, 4), rigid.

    Returns:
        (4, 4) float64, T_b_a.
    """
    T_a_b = np.asarray(T_a_b, dtype=np.float64)
    R = T_a_b[:3, :3].T
    return make_transform(R, -R @ T_a_b[:3, 3])


def transform_points(T_a_b: ArrayLike, points_b: ArrayLike) -> NDArray[np.float64]:
    """Take points from frame b to frame a.

    Args:
        T_a_b: (4, 4), rigid.
        points_b: (..., 3) [m].

    Returns:
        (..., 3) float64, the points in frame a [m].
    """
    T_a_b = np.asarray(T_a_b, dtype=np.float64)
    return np.asarray(points_b, dtype=np.float64) @ T_a_b[:3, :3].T + T_a_b[:3, 3]


def is_rigid(T_a_b: ArrayLike, tolerance: float = 1e-3) -> bool:
    """Tell whether a matrix is a finite rigid transform.

    Args:
        T_a_b: any array.
        tolerance: largest allowed deviation of an entry of R R^T from the identity, and of the
            last row from 0 0 0 1.

    Returns:
        True for a (4, 4) matrix of a proper rotation and a finite translation.
    """
    T_a_b = np.asarray(T_a_b, dtype=np.float64)
    if T_a_b.shape != (4, 4) or not np.isfinite(T_a_b).all():
        return False
    R = T_a_b[:3, :3]
    return bool(
        np.abs(R @ R.T - np.eye(3)).max() <= tolerance
        and np.linalg.det(R) > 0
        and np.abs(T_a_b[3] - (0, 0, 0, 1)).max() <= tolerance
    )


def quaternion_xyzw_from_rotation(R: ArrayLike) -> NDArray[np.float64]:
    """Convert a rotation matrix to a quaternion.

    Args:
        R: (3, 3), a rotation.

    Returns:
        (4,) float64, x y z w of unit norm with w >= 0.
    """
    R = np.asarray(R, dtype=np.float64)
    # Entry (i, j) is 4 q_i q_j. The row of the largest diagonal entry never cancels to zero,
    # so this holds up to half a turn.
    outer = np.empty((4, 4))
    outer[:3, :3] = R + R.T
    trace = np.trace(R)
    outer[np.arange(3), np.arange(3)] = 1.0 - trace + 2.0 * np.diag(R)
    outer[3, :3] = outer[:3, 3] = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
    outer[3, 3] = 1.0 + trace
    quaternion = outer[np.argmax(np.diag(outer))]
    quaternion = quaternion / np.linalg.norm(quaternion)
    return -quaternion if quaternion[3] < 0 else quaternion


def rotation_from_quaternion_xyzw(quaternion_xyzw: ArrayLike) -> NDArray[np.float64]:
    """Convert a quaternion to a rotation matrix.

    Args:
        quaternion_xyzw: (4,), of any norm but zero.

    Returns:
        (3, 3) float64.

    Raises:
        ValueError: when the quaternion has no direction (zero or not finite).
    """
    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    norm = np.linalg.norm(quaternion)
    if quaternion.shape != (4,) or not np.isfinite(norm) or norm < 1e-9:
        raise ValueError(
            f'No rotation in the quaternion {quaternion.tolist()}; wanted four finite numbers '
            'x y z w that are not all zero. Fill in the orientation (0 0 0 1 = no rotation).'
        )
    x, y, z, w = quaternion / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_vector(R: ArrayLike) -> NDArray[np.float64]:
    """Give axis times angle of a rotation.

    Args:
        R: (3, 3), a rotation.

    Returns:
        (3,) float64 [rad], of norm at most pi.
    """
    x, y, z, w = quaternion_xyzw_from_rotation(R)
    axis = np.array([x, y, z])
    sine = np.linalg.norm(axis)
    return 2.0 * axis if sine < 1e-9 else 2.0 * np.arctan2(sine, w) / sine * axis


def skew(vectors: ArrayLike) -> NDArray[np.float64]:
    """Give the matrices S(v) with S(v) @ u = v x u.

    Args:
        vectors: (..., 3).

    Returns:
        (..., 3, 3) float64.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    matrices = np.zeros((*vectors.shape, 3))
    matrices[..., 0, 1], matrices[..., 1, 0] = -vectors[..., 2], vectors[..., 2]
    matrices[..., 0, 2], matrices[..., 2, 0] = vectors[..., 1], -vectors[..., 1]
    matrices[..., 1, 2], matrices[..., 2, 1] = -vectors[..., 0], vectors[..., 0]
    return matrices


def pose_error(T_a_b_estimated: ArrayLike, T_a_b_true: ArrayLike) -> tuple[float, float]:
    """Measure how far one pose of b in a is from another.

    Args:
        T_a_b_estimated: (4, 4).
        T_a_b_true: (4, 4).

    Returns:
        Distance of the two origins [m] and angle between the two orientations [deg].
    """
    estimated = np.asarray(T_a_b_estimated, dtype=np.float64)
    true = np.asarray(T_a_b_true, dtype=np.float64)
    translation_m = float(np.linalg.norm(estimated[:3, 3] - true[:3, 3]))
    angle_rad = np.linalg.norm(rotation_vector(estimated[:3, :3] @ true[:3, :3].T))
    return translation_m, float(np.degrees(angle_rad))


def move_covariance(
    covariance: NDArray[np.float64], lever_map: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Take the covariance of a pose to another place of the same rigid body.

    A wrong orientation moves what is away: to first order error_there = error_here +
    rotation_error x (there - here), all in the map frame.

    Args:
        covariance: (6, 6), order x y z rx ry rz in the map frame [m, rad].
        lever_map: (3,) there - here, in the map frame [m].

    Returns:
        (6, 6) float64 in the same order and frame.
    """
    jacobian = np.eye(6)
    jacobian[:3, 3:] = -skew(lever_map)
    return jacobian @ covariance @ jacobian.T


def main_axes(points: ArrayLike) -> NDArray[np.float64]:
    """Find the directions in which points spread, the first most and the last least.

    Args:
        points: (N, 3).

    Returns:
        (3, 3) float64, a rotation whose rows are the directions; x, y, z for fewer than 2 points.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    if len(points) < 2:
        return np.eye(3)
    offsets = points - points.mean(axis=0)
    _, _, directions = np.linalg.svd(offsets.T @ offsets)
    # A mirrored map would mislead.
    directions[2] *= np.sign(np.linalg.det(directions))
    return directions
