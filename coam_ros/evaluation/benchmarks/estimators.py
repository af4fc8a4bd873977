"""Robust estimators of the geometry of a pair; one of them serves all matchers of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from coam_ros.evaluation.data.image_pairs import PosedPair
from coam_ros.geometry.transforms import make_transform
from coam_ros.matching import Correspondences
import cv2
import numpy as np
from numpy.typing import NDArray
import poselib

# For all matchers alike; in pixels of the images as matched.
MAX_EPIPOLAR_ERROR_PX = 1.5
MAX_TRANSFER_ERROR_PX = 3.0
# Fewer matches give no result.
_MIN_FOR_POSE, _MIN_FOR_HOMOGRAPHY = 5, 4
_MIN_ITERATIONS, _MAX_ITERATIONS = 1000, 5000


class Estimator(Protocol):
    """Finds the geometry of a pair from matches of which some are wrong.

    Attributes:
        description: what it is, for the protocol of a report.
    """

    description: str

    def relative_pose(
        self, found: Correspondences, pair: PosedPair, seed: int
    ) -> NDArray[np.float64] | None:
        """Estimate T_1_0 (4, 4), of unit translation; None when there is none."""
        ...

    def homography(self, found: Correspondences, seed: int) -> NDArray[np.float64] | None:
        """Estimate (3, 3), pixels of image 0 to those of image 1; None when there is none."""
        ...


class PoseLibEstimator:
    """LO-RANSAC of PoseLib."""

    description = f'PoseLib, {_MIN_ITERATIONS} to {_MAX_ITERATIONS} iterations'
    _ransac = {'min_iterations': _MIN_ITERATIONS, 'max_iterations': _MAX_ITERATIONS}  # noqa: RUF012

    def relative_pose(
        self, found: Correspondences, pair: PosedPair, seed: int
    ) -> NDArray[np.float64] | None:
        """See `Estimator`."""
        if len(found) < _MIN_FOR_POSE:
            return None
        cameras = [
            {
                'model': 'PINHOLE',
                'width': -1,
                'height': -1,
                'params': [K[0, 0], K[1, 1], *K[:2, 2]],
            }
            for K in (pair.intrinsics0, pair.intrinsics1)
        ]
        pose, info = poselib.estimate_relative_pose(
            found.points0.astype(np.float64),
            found.points1.astype(np.float64),
            *cameras,
            {**self._ransac, 'max_epipolar_error': MAX_EPIPOLAR_ERROR_PX, 'seed': seed},
        )
        return self._if_found(make_transform(pose.R, pose.t), info, _MIN_FOR_POSE)

    def homography(self, found: Correspondences, seed: int) -> NDArray[np.float64] | None:
        """See `Estimator`."""
        if len(found) < _MIN_FOR_HOMOGRAPHY:
            return None
        homography, info = poselib.estimate_homography(
            found.points0.astype(np.float64),
            found.points1.astype(np.float64),
            {**self._ransac, 'max_reproj_error': MAX_TRANSFER_ERROR_PX, 'seed': seed},
        )
        return self._if_found(homography, info, _MIN_FOR_HOMOGRAPHY)

    @staticmethod
    def _if_found(
        matrix: NDArray[np.float64], info: Mapping[str, object], num_needed: int
    ) -> NDArray[np.float64] | None:
        # Where it finds nothing PoseLib answers the identity, which is near many a truth.
        return _if_finite(matrix) if info['num_inliers'] >= num_needed else None


class OpenCvEstimator:
    """MAGSAC of OpenCV's USAC."""

    description = f'OpenCV, MAGSAC, at most {_MAX_ITERATIONS} iterations'

    def __init__(self) -> None:
        """Check the version of OpenCV.

        Raises:
            ValueError: it is too old.
        """
        if not hasattr(cv2, 'MAGSAC'):
            raise ValueError(
                f'OpenCV {cv2.__version__} cannot polish with MAGSAC; install a newer one '
                '(`pip install opencv-python-headless`), or use another estimator.'
            )

    def relative_pose(
        self, found: Correspondences, pair: PosedPair, seed: int
    ) -> NDArray[np.float64] | None:
        """See `Estimator`."""
        if len(found) < _MIN_FOR_POSE:
            return None
        cameras = (pair.intrinsics0, pair.intrinsics1)
        points = [x.astype(np.float64) for x in (found.points0, found.points1)]
        # In pixels: in normalised coordinates its MAGSAC loses its scale (tried with OpenCV 5.0).
        essential, mask = cv2.findEssentialMat(
            *points, *cameras, None, None, _magsac(MAX_EPIPOLAR_ERROR_PX, seed)
        )
        if essential is None or essential.shape != (3, 3):
            return None
        rays = [(x - K[:2, 2]) / np.diag(K)[:2] for x, K in zip(points, cameras, strict=True)]
        _, R, t, _ = cv2.recoverPose(essential, *rays, np.eye(3), mask=mask)
        return _if_finite(make_transform(R, t.ravel()))

    def homography(self, found: Correspondences, seed: int) -> NDArray[np.float64] | None:
        """See `Estimator`."""
        if len(found) < _MIN_FOR_HOMOGRAPHY:
            return None
        homography, _ = cv2.findHomography(
            found.points0, found.points1, _magsac(MAX_TRANSFER_ERROR_PX, seed)
        )
        return None if homography is None else _if_finite(homography)


def _magsac(threshold: float, seed: int) -> cv2.UsacParams:
    parameters = cv2.UsacParams()
    parameters.score = cv2.SCORE_METHOD_MAGSAC
    parameters.loMethod = cv2.LOCAL_OPTIM_SIGMA
    parameters.final_polisher = cv2.MAGSAC
    parameters.final_polisher_iterations = 10
    parameters.sampler = cv2.SAMPLING_UNIFORM
    parameters.confidence = 0.9999
    parameters.maxIterations = _MAX_ITERATIONS
    parameters.randomGeneratorState = seed
    parameters.threshold = threshold
    return parameters


def _if_finite(matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    return matrix if np.isfinite(matrix).all() else None


ESTIMATORS: dict[str, type[Estimator]] = {'poselib': PoseLibEstimator, 'opencv': OpenCvEstimator}
