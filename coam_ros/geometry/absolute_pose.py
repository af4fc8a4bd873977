"""Camera pose from 2D-3D matches: LO-RANSAC, robust refinement, and a covariance to believe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import (
    invert,
    make_transform,
    move_covariance,
    skew,
    transform_points,
)
import numpy as np
from numpy.typing import ArrayLike, NDArray
import poselib

# Three points leave up to four poses; the fourth decides.
_MIN_POINTS = 4
# PoseLib's name of a distortion model of ROS, and how many coefficients it takes.
_POSELIB_MODELS = {
    'plumb_bob': ('FULL_OPENCV', 8),
    'rational_polynomial': ('FULL_OPENCV', 8),
    'equidistant': ('OPENCV_FISHEYE', 4),
}
# The scale of the Cauchy loss over the residuals' standard deviation: 95 % efficiency on
# Gaussian noise (Huber, Robust Statistics; the usual tuning constant).
_CAUCHY_SCALE = 2.385
# Matches never agree better than this, whatever their residuals say [px].
_MIN_SIGMA_PX = 0.1
# Reciprocal condition of the normal equations below which the points leave the pose open
# (all on one line, or all in one place).
_MIN_RECIPROCAL_CONDITION = 1e-9
# Matches in one cell of an image grid, this many cells along the longer side, are taken to share
# their error. Measured by test_absolute_pose.py's scenes at 640 px: for errors shared over 0, 40,
# 80, 160 px the squared error over the covariance is 0.8, 0.9, 1.0, 2.2 per degree of freedom
# (1.2, 1.9, 5.1 for 40, 80, 160 px with 6 cells).
_CORRELATION_CELLS = 4
_MIN_ITERATIONS = 100
# Enough for 5 % right matches when their scores are worth something (redkitchen's hardest frames).
_MAX_ITERATIONS = 5000


@dataclass(frozen=True, eq=False)
class AbsolutePose:
    """A camera pose with its evidence.

    Attributes:
        T_map_camera: (4, 4) float64.
        inlier_mask: (N,) bool, True where a match reprojects within the threshold.
        reprojection_errors_px: (N,) float64; NaN where the match has no landmark, or has it
            behind the camera.
        covariance: (6, 6) float64, order x y z rx ry rz as geometry_msgs/PoseWithCovariance: of
            the error [t_estimated - t_true, rotation vector of R_estimated R_true^T], both in
            the map frame [m, rad].
    """

    T_map_camera: NDArray[np.float64]
    inlier_mask: NDArray[np.bool_]
    reprojection_errors_px: NDArray[np.float64]
    covariance: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GroupErrors:
    """How far groups of landmarks are off as a whole, each by itself.

    Attributes:
        position_std_m: of a group's position, along each axis of the map.
        rotation_std_rad: of its orientation, about each axis of the map through its centre.
        centres_map: (G, 3) where they turn, for example the keyframes' positions [m].
    """

    position_std_m: float
    rotation_std_rad: float
    centres_map: NDArray[np.float64]

    def at(self, group: int, position_map: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the (6, 6) covariance of a pose at a position that goes along with a group."""
        variances = np.repeat([self.position_std_m**2, self.rotation_std_rad**2], 3)
        return move_covariance(np.diag(variances), position_map - self.centres_map[group])


def estimate_absolute_pose(
    pixels: ArrayLike,
    points_map: ArrayLike,
    camera: PinholeCamera,
    *,
    scores: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    group_errors: GroupErrors | None = None,
    max_reprojection_error_px: float = 12.0,
    max_iterations: int = _MAX_ITERATIONS,
    seed: int = 0,
) -> AbsolutePose | None:
    """Estimate where a camera is from landmarks that it sees.

    The result depends on the input and the seed alone.

    Args:
        pixels: (N, 2), of the image as the camera gives it, with distortion.
        points_map: (N, 3), landmarks in the map frame [m]; rows with NaN take no part.
        camera: of the image.
        scores: (N,), the higher the likelier a match is right. With them RANSAC tries good
            matches first, which finds the pose more often when few matches are right.
        groups: (N,) integers from 0, equal for matches whose landmarks may share an error, such as
            those of one keyframe, whose pose in the map is not exact. Counts for the covariance.
        group_errors: how large that error is. How far groups disagree is measured; how far off
            one is that is alone, or outweighs the others, no measurement can tell. None: not at
            all.
        max_reprojection_error_px: largest error of an inlier.
        max_iterations: of RANSAC; bounds the time spent on matches that have no pose.
        seed: of RANSAC.

    Returns:
        The pose, or None when there is none to be had: fewer than 4 usable matches or inliers,
        no pose found, or points that leave the pose open (on one line, in one place).

    Raises:
        ValueError: when the two arrays do not fit together.
    """
    pixels = np.asarray(pixels, dtype=np.float64)
    points_map = np.asarray(points_map, dtype=np.float64)
    if pixels.ndim != 2 or pixels.shape[1] != 2 or points_map.shape != (len(pixels), 3):
        raise ValueError(
            f'Pixels of shape {pixels.shape} with points of shape {points_map.shape}; wanted '
            '(N, 2) and (N, 3). Pass one landmark for each pixel, NaN where there is none.'
        )
    scores = _checked_column('scores', scores, len(pixels))
    groups = _checked_column('groups', groups, len(pixels))
    ideal_pixels = camera.undistort(pixels)
    usable = np.isfinite(ideal_pixels).all(axis=1) & np.isfinite(points_map).all(axis=1)
    if usable.sum() < _MIN_POINTS:
        return None
    order = np.flatnonzero(usable)
    if scores is not None:
        order = order[np.argsort(-scores[order], kind='stable')]
    ransac = {
        'max_reproj_error': max_reprojection_error_px,
        'min_iterations': min(_MIN_ITERATIONS, max_iterations),
        'max_iterations': max_iterations,
        'progressive_sampling': scores is not None,
        'max_prosac_iterations': max_iterations,
        'seed': seed,
    }
    # PoseLib turns about the origin: where that is far away, as in UTM, a small turn is a long
    # way, and its poses would be off by three times what the matches allow (measured).
    T_near_map = make_transform(np.eye(3), -points_map[order].mean(axis=0))
    points_near = transform_points(T_near_map, points_map[order])
    T_camera_near = _solve(pixels[order], ideal_pixels[order], points_near, camera, ransac)
    if T_camera_near is None:
        return None
    T_camera_map = T_camera_near @ T_near_map
    residuals = camera.project(transform_points(T_camera_map, points_map)) - pixels
    errors = np.linalg.norm(residuals, axis=1)
    inlier_mask = errors <= max_reprojection_error_px  # False for NaN
    # The search counted in undistorted pixels: in those of the image fewer may be left.
    if inlier_mask.sum() < _MIN_POINTS:
        return None
    covariance = _covariance(
        T_camera_map,
        pixels[inlier_mask],
        points_map[inlier_mask],
        residuals[inlier_mask],
        None if groups is None else groups[inlier_mask],
        group_errors,
        camera,
    )
    if covariance is None:
        return None
    return AbsolutePose(invert(T_camera_map), inlier_mask, errors, covariance)


def _checked_column(
    name: str, values: ArrayLike | None, num_matches: int
) -> NDArray[np.float64] | None:
    if values is None:
        return None
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (num_matches,):
        raise ValueError(
            f'{name} of shape {column.shape} for {num_matches} matches; wanted one number a '
            'match. Pass all of them, or None.'
        )
    return column


def _solve(
    pixels: NDArray[np.float64],
    ideal_pixels: NDArray[np.float64],
    points_map: NDArray[np.float64],
    camera: PinholeCamera,
    ransac: dict[str, float | bool],
) -> NDArray[np.float64] | None:
    """Run LO-RANSAC, then refine on the inliers with a loss that fits their own noise.

    The search takes undistorted pixels. What it finds is refined in those of the image itself:
    far from the axis of a wide lens an error of one pixel is many in the undistorted image.
    """
    pinhole = replace(camera, distortion=())
    pose, info = poselib.estimate_absolute_pose(
        ideal_pixels, points_map, _poselib_camera(pinhole), ransac
    )
    if sum(info['inliers']) < _MIN_POINTS:
        return None
    T_camera_map = make_transform(pose.R, pose.t)
    residuals = camera.project(transform_points(T_camera_map, points_map)) - pixels
    is_inlier = np.linalg.norm(residuals, axis=1) <= ransac['max_reproj_error']  # False for NaN
    loss_scale = _CAUCHY_SCALE * _sigma_px(residuals[is_inlier])
    pose, _ = poselib.refine_absolute_pose(
        pixels[is_inlier],
        points_map[is_inlier],
        pose,
        _poselib_camera(camera),
        {'loss_type': 'CAUCHY', 'loss_scale': loss_scale, 'max_iterations': 25},
    )
    T_camera_map = make_transform(pose.R, pose.t)
    return T_camera_map if np.isfinite(T_camera_map).all() else None


def _poselib_camera(camera: PinholeCamera) -> dict[str, Any]:
    """Describe a camera to PoseLib, which works in whatever pixels it gets: no half pixel here."""
    model, num_coefficients = 'PINHOLE', 0
    if camera.is_distorted:
        model, num_coefficients = _POSELIB_MODELS[camera.distortion_model]
    coefficients = (*camera.distortion, *(0.0,) * num_coefficients)[:num_coefficients]
    return {
        'model': model,
        'width': camera.width,
        'height': camera.height,
        'params': [camera.fx, camera.fy, camera.cx, camera.cy, *coefficients],
    }


def _sigma_px(residuals: NDArray[np.float64]) -> float:
    """Estimate the standard deviation of a coordinate from (N, 2) residuals with outliers."""
    deviation = 1.4826 * float(np.median(np.abs(residuals)))  # of a Gaussian's median
    return max(deviation, _MIN_SIGMA_PX)


def _covariance(
    T_camera_map: NDArray[np.float64],
    pixels: NDArray[np.float64],
    points_map: NDArray[np.float64],
    residuals: NDArray[np.float64],
    groups: NDArray[np.float64] | None,
    group_errors: GroupErrors | None,
    camera: PinholeCamera,
) -> NDArray[np.float64] | None:
    """Estimate the pose's covariance from the inliers; None when they leave the pose open.

    The shape is that of the inverse Hessian of the reprojection errors. Its scale is what the
    errors really do: matches share errors with their neighbours (of the matcher on one texture,
    of the depth image) and with their group (of the keyframe's pose), so a thousand of them do
    not count as a thousand observations. The gradients of all matches in one cell of an image
    grid, and of all in one group, are therefore summed before they are squared: the two-way
    cluster-robust covariance of Cameron, Gelbach and Miller (J. Business & Economic Statistics
    2011, eq. 2.8). Matches with independent errors lose nothing by it.

    A group that is off as a whole takes the pose along by the share that it has of the Hessian:
    all the way where it is alone. That is added for the errors given.
    """
    jacobians = _jacobians(T_camera_map, points_map, camera)
    loss_scale = _CAUCHY_SCALE * _sigma_px(residuals)
    weights = 1.0 / (1.0 + (residuals**2).sum(axis=1) / loss_scale**2)
    hessian = np.einsum('nki,n,nkj->ij', jacobians, weights, jacobians)
    units = np.sqrt(np.diag(hessian))
    if not (np.isfinite(units).all() and units.min() > 0):
        return None
    # Metres and radians are comparable only after scaling each to a unit diagonal.
    eigenvalues = np.linalg.eigvalsh(hessian / np.outer(units, units))
    if eigenvalues[0] < _MIN_RECIPROCAL_CONDITION * eigenvalues[-1]:
        return None
    inverse_hessian = np.linalg.inv(hessian)

    # The error is inverse_hessian @ sum(gradients) / efficiency (Huber's M-estimator), where the
    # efficiency says how much less a match pulls the pose than its weight would have it.
    gradients = np.einsum('nki,n,nk->ni', jacobians, weights, residuals)
    efficiency = (weights**2).sum() / weights.sum()
    cells = _cell_indices(pixels, camera)
    # The fit uses up six degrees of freedom of the cells, and the mean of the groups.
    by_cell = _clustered(gradients, cells, inverse_hessian, num_fitted=6)
    variances = [by_cell, _clustered(gradients, np.arange(len(cells)), inverse_hessian)]
    if groups is not None:
        labels, group = np.unique(groups, return_inverse=True)
        by_group = _clustered(gradients, group, inverse_hessian, num_fitted=1)
        both = _clustered(gradients, cells * (group.max() + 1) + group, inverse_hessian)
        variances.append(by_cell + by_group - both)
    variance = max(variances) / efficiency**2
    covariance = max(variance, _MIN_SIGMA_PX**2) * inverse_hessian
    if groups is not None and group_errors is not None:
        position_map = invert(T_camera_map)[:3, 3]
        for number, label in enumerate(labels.astype(np.int64)):
            rows = group == number
            share = inverse_hessian @ np.einsum(
                'nki,n,nkj->ij', jacobians[rows], weights[rows], jacobians[rows]
            )
            covariance += share @ group_errors.at(label, position_map) @ share.T
    return covariance


def _clustered(
    gradients: NDArray[np.float64],
    clusters: NDArray[np.int64],
    inverse_hessian: NDArray[np.float64],
    num_fitted: int = 0,
) -> float:
    """Give the variance per degree of freedom of (N, 6) gradients that clusters (N,) share."""
    occupied, cluster = np.unique(clusters, return_inverse=True)
    sums = np.zeros((len(occupied), 6))
    np.add.at(sums, cluster, gradients)
    correction = len(occupied) / max(len(occupied) - num_fitted, 1)
    return correction * float(np.einsum('gi,ij,gj->', sums, inverse_hessian, sums)) / 6


def _jacobians(
    T_camera_map: NDArray[np.float64], points_map: NDArray[np.float64], camera: PinholeCamera
) -> NDArray[np.float64]:
    """Give (N, 2, 6), change of the projection with the pose error as in `AbsolutePose`."""
    by_point = camera.projection_jacobians(transform_points(T_camera_map, points_map))
    by_map_point = by_point @ T_camera_map[:3, :3]
    # p_camera = R (p_map - centre). Moving the centre moves the point the other way;
    # turning the camera by w turns the point's ray by -w: d ray = ray x w.
    rays = points_map - invert(T_camera_map)[:3, 3]
    return np.concatenate([-by_map_point, by_map_point @ skew(rays)], axis=2)


def _cell_indices(pixels: NDArray[np.float64], camera: PinholeCamera) -> NDArray[np.int64]:
    cell_px = max(camera.width, camera.height) / _CORRELATION_CELLS
    columns, rows = np.floor((pixels + 0.5) / cell_px).astype(np.int64).T
    return columns + 1000 * rows
