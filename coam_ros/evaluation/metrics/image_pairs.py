"""Figures of merit of matches and of what is estimated from them."""

from __future__ import annotations

from collections.abc import Sequence

from coam_ros.geometry.image_views import apply_homography
from coam_ros.geometry.transforms import rotation_vector
import numpy as np
from numpy.typing import ArrayLike, NDArray


def error_auc(errors: ArrayLike, max_errors: Sequence[float]) -> list[float]:
    """Give the area under the curve of recall against error, up to each of some errors.

    The curve runs straight from (0, 0) through (k-th smallest error, k / N), then level, as in
    the evaluation of SuperGlue (Sarlin et al., CVPR 2020), whose figures are quoted everywhere.

    Args:
        errors: (N,) at least 0, inf for what failed.
        max_errors: ends of the curve, in the unit of the errors.

    Returns:
        For each, the area divided by that of a curve at 1, in [0, 1]; NaN for no errors.
    """
    errors = np.sort(np.asarray(errors, dtype=np.float64))
    if not len(errors):
        return [float('nan')] * len(max_errors)
    areas = []
    for max_error in max_errors:
        below = errors[errors < max_error]
        recall = np.arange(len(below) + 1) / len(errors)
        x, y = np.concatenate([[0], below, [max_error]]), np.append(recall, recall[-1])
        areas.append(float(np.diff(x) @ (y[1:] + y[:-1])) / 2 / max_error)
    return areas


def share_within(errors: ArrayLike, max_errors: Sequence[float]) -> list[float]:
    """Give the share of errors that are at most each of some errors; 0 for no errors at all.

    Of the errors of the matches of one pair this is its matching accuracy, whose mean over pairs
    is the MMA (Mikolajczyk and Schmid, PAMI 2005; Dusmanu et al., CVPR 2019).
    """
    errors = np.asarray(errors, dtype=np.float64)
    return [float((errors <= e).mean()) if len(errors) else 0.0 for e in max_errors]


def relative_pose_error_deg(T_1_0_estimated: ArrayLike, T_1_0_true: ArrayLike) -> float:
    """Give the larger of the errors of the rotation and of the direction of the translation.

    Args:
        T_1_0_estimated: (4, 4), of any scale.
        T_1_0_true: (4, 4), of any scale; without a translation only the rotation counts.

    Returns:
        [deg]; at least 90 where the estimate alone has no translation. Directions of opposite
        sign count as equal, as in the evaluation of SuperGlue.
    """
    estimated, true = np.asarray(T_1_0_estimated), np.asarray(T_1_0_true)
    angle_rad = np.linalg.norm(rotation_vector(estimated[:3, :3] @ true[:3, :3].T))
    direction_rad = 0.0
    if true[:3, 3].any():
        # atan2 keeps its digits near 0, where arccos has none.
        sine = np.linalg.norm(np.cross(estimated[:3, 3], true[:3, 3]))
        cosine = abs(estimated[:3, 3] @ true[:3, 3])
        direction_rad = np.arctan2(sine, cosine) if estimated[:3, 3].any() else np.pi / 2
    return float(np.degrees(max(angle_rad, direction_rad)))


def corner_error_px(estimated: ArrayLike, true: ArrayLike, size: tuple[int, int]) -> float:
    """Give the mean distance of the corners of image 0 between two homographies.

    Args:
        estimated: (3, 3), pixels of image 0 to pixels of image 1.
        true: the same.
        size: (width, height) of image 0 [px].

    Returns:
        [px] of image 1; inf where a corner goes to infinity.
    """
    right, bottom = size[0] - 1, size[1] - 1
    corners = [(0, 0), (right, 0), (right, bottom), (0, bottom)]
    offsets = apply_homography(corners, estimated) - apply_homography(corners, true)
    distance_px = float(np.linalg.norm(offsets, axis=1).mean())
    return distance_px if np.isfinite(distance_px) else float('inf')


def precision_recall(
    is_right: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Take matches from the highest score down and follow how many are right.

    Args:
        is_right: (N,) bool.
        scores: (N,); of equal ones all come at once.

    Returns:
        Precision and recall, (M,) each, after each of the M different scores. Recall is of the
        right ones among these N. Both empty when none is right.
    """
    is_right, scores = np.asarray(is_right, dtype=bool), np.asarray(scores)
    if not is_right.any():
        return np.empty(0), np.empty(0)
    order = np.argsort(-scores, kind='stable')
    num_right = np.cumsum(is_right[order])
    last_of_equal = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    precision = num_right[last_of_equal] / (last_of_equal + 1)
    return precision, num_right[last_of_equal] / num_right[-1]
