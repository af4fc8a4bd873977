"""The pinhole camera with ROS distortion models, and the pixel convention of the project.

x right, y down; (0, 0) is the CENTRE of the top-left pixel, as in OpenCV. A resize by `scale`
maps a pixel p to (p + 0.5) * scale - 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Lengths of the coefficient list that sensor_msgs/CameraInfo knows for each model.
_NUM_COEFFICIENTS = {'plumb_bob': (4, 5), 'rational_polynomial': (8,), 'equidistant': (4,)}
_NEWTON_ITERATIONS = 15
_NEWTON_STEP = 1e-6
# Far below what matters, above the digits of the numbers.
_NEWTON_TOLERANCE = 1e-12
# A pixel whose inverse does not reproject this close has no ideal pixel [px].
_UNDISTORT_TOLERANCE_PX = 0.01

# Tolerances in pixels are meant for an image of this area, at which the matcher works by default;
# for other images they scale with its root.
NOMINAL_AREA_PX = 640 * 480


class CalibrationError(ValueError):
    """The numbers do not describe a camera."""


@dataclass(frozen=True)
class PinholeCamera:
    """A calibrated camera: p_pixel = K @ distort(x / z, y / z), z forward.

    Attributes:
        width: of the image [px].
        height: of the image [px].
        fx: focal length [px].
        fy: focal length [px].
        cx: principal point [px].
        cy: principal point [px].
        distortion: coefficients in ROS order; empty or all zero = no distortion.
        distortion_model: `plumb_bob` (k1 k2 p1 p2 [k3]), `rational_polynomial`
            (k1 k2 p1 p2 k3 k4 k5 k6) or `equidistant` (k1 k2 k3 k4, fisheye).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    distortion_model: str = 'plumb_bob'

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            CalibrationError: when they do not describe a camera.
        """
        # NumPy's scalars are no JSON, of which maps are made.
        for name in ('width', 'height'):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        for name in ('fx', 'fy', 'cx', 'cy'):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, 'distortion', tuple(float(d) for d in self.distortion))
        if self.width <= 0 or self.height <= 0:
            raise CalibrationError(
                f'Camera of {self.width} x {self.height} px; wanted a positive width and '
                'height. Publish the size of the image in camera_info.'
            )
        if not (np.isfinite(self.K).all() and self.fx > 0 and self.fy > 0):
            raise CalibrationError(
                f'Camera is not calibrated: fx={self.fx} fy={self.fy} cx={self.cx} '
                f'cy={self.cy}; wanted finite numbers and positive focal lengths. Calibrate the '
                'camera and publish K in camera_info.'
            )
        if not np.isfinite(self.distortion).all():
            raise CalibrationError(
                f'Distortion {self.distortion} is not finite; wanted numbers. Calibrate the '
                'camera again, or publish no coefficients for a rectified image.'
            )
        if not self.is_distorted:
            return
        if self.distortion_model not in _NUM_COEFFICIENTS:
            raise CalibrationError(
                f'Unknown distortion model {self.distortion_model!r}; wanted one of '
                f'{sorted(_NUM_COEFFICIENTS)}. Rectify the image, or calibrate with one of them.'
            )
        if len(self.distortion) not in _NUM_COEFFICIENTS[self.distortion_model]:
            raise CalibrationError(
                f'{len(self.distortion)} coefficients for {self.distortion_model}; wanted '
                f'{_NUM_COEFFICIENTS[self.distortion_model]}. Correct D in camera_info.'
            )

    @classmethod
    def from_K(  # noqa: N802 - K is a name of the field
        cls,
        K: ArrayLike,
        width: int,
        height: int,
        distortion: tuple[float, ...] = (),
        distortion_model: str = 'plumb_bob',
    ) -> PinholeCamera:
        """Make a camera from an intrinsic matrix.

        Args:
            K: (3, 3) or 9 numbers row by row; skew is not supported and must be zero.
            width: of the image [px].
            height: of the image [px].
            distortion: as the attribute.
            distortion_model: as the attribute.

        Returns:
            The camera.

        Raises:
            CalibrationError: when the numbers do not describe a camera.
        """
        K = np.asarray(K, dtype=np.float64)
        if K.size != 9:
            raise CalibrationError(
                f'Intrinsic matrix of shape {K.shape}; wanted (3, 3). Correct K.'
            )
        K = K.reshape(3, 3)
        if K[0, 1] != 0:
            raise CalibrationError(
                f'Intrinsic matrix with skew {K[0, 1]}; wanted 0. Calibrate without skew.'
            )
        camera = cls(
            int(width),
            int(height),
            float(K[0, 0]),
            float(K[1, 1]),
            float(K[0, 2]),
            float(K[1, 2]),
            distortion,
            distortion_model,
        )
        if K[1, 0] != 0 or (K[2] != (0, 0, 1)).any():
            raise CalibrationError(
                f'Intrinsic matrix {K.tolist()}; wanted fx 0 cx / 0 fy cy / 0 0 1. Correct K.'
            )
        return camera

    @property
    def K(self) -> NDArray[np.float64]:
        """(3, 3) float64, the intrinsic matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    @property
    def pixels_per_nominal(self) -> float:
        """Pixels of this image along a side of one of 640 x 480, for tolerances meant for that."""
        return math.sqrt(self.width * self.height / NOMINAL_AREA_PX)

    @property
    def is_distorted(self) -> bool:
        """Whether any coefficient differs from zero."""
        return any(self.distortion)

    def project(self, points_camera: ArrayLike) -> NDArray[np.float64]:
        """Project points, with distortion.

        Args:
            points_camera: (N, 3), camera frame [m].

        Returns:
            (N, 2) float64 pixels, which may lie outside the image; NaN for points that are not
            in front of the camera, or so far off its axis that the lens model folds back.
        """
        ideal = _normalized(points_camera)
        distorted = self._distort(ideal)
        distorted[~self._is_unfolded(ideal, distorted)] = np.nan
        return self._to_pixels(distorted)

    def projection_jacobians(self, points_camera: ArrayLike) -> NDArray[np.float64]:
        """Differentiate the projection.

        Args:
            points_camera: (N, 3), camera frame [m].

        Returns:
            (N, 2, 3) float64, change of the pixel with the point [px/m]; NaN for points that are
            not in front of the camera.
        """
        points = np.asarray(points_camera, dtype=np.float64).reshape(-1, 3)
        normalized = _normalized(points)
        by_point = np.zeros((len(points), 2, 3))
        by_point[:, 0, 0] = by_point[:, 1, 1] = 1.0
        by_point[:, :, 2] = -normalized
        by_point /= points[:, 2, None, None]
        by_normalized = np.stack(self._distortion_slopes(normalized), axis=2)
        return np.diag([self.fx, self.fy]) @ by_normalized @ by_point

    def unproject(self, pixels: ArrayLike, depth_m: ArrayLike) -> NDArray[np.float64]:
        """Lift pixels of the real (distorted) image to 3D.

        Args:
            pixels: (N, 2).
            depth_m: (N,) or a number, z in the camera frame [m].

        Returns:
            (N, 3) float64 points, camera frame [m]; NaN where the depth is NaN.
        """
        ideal = self._from_pixels(self.undistort(pixels))
        depth = np.broadcast_to(np.asarray(depth_m, dtype=np.float64), ideal.shape[:1])
        return np.column_stack([ideal * depth[:, None], depth])

    def undistort(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Move pixels to where an ideal pinhole camera with the same K would see them.

        Args:
            pixels: (N, 2), of the real image.

        Returns:
            (N, 2) float64; NaN where the distortion has no inverse.
        """
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        if not self.is_distorted:
            return pixels.copy()
        distorted = self._from_pixels(pixels)
        ideal = distorted.copy()
        # Points without an inverse may run away; they end as NaN below.
        with np.errstate(all='ignore'):
            for _ in range(_NEWTON_ITERATIONS):
                residual = self._distort(ideal) - distorted
                if not (np.abs(residual) > _NEWTON_TOLERANCE).any():
                    break
                by_x, by_y = self._distortion_slopes(ideal)
                determinant = _determinant(by_x, by_y)
                ideal[:, 0] -= (by_y[:, 1] * residual[:, 0] - by_y[:, 0] * residual[:, 1]) / (
                    determinant
                )
                ideal[:, 1] -= (by_x[:, 0] * residual[:, 1] - by_x[:, 1] * residual[:, 0]) / (
                    determinant
                )
            error = np.abs(self._to_pixels(self._distort(ideal)) - pixels).max(axis=1)
            has_inverse = (error < _UNDISTORT_TOLERANCE_PX) & self._is_unfolded(ideal, distorted)
        ideal[~has_inverse] = np.nan
        return self._to_pixels(ideal)

    def _distortion_slopes(
        self, ideal: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the change, (N, 2) each, of the distorted point with x and with y."""
        by_x, by_y = (
            (self._distort(ideal + step) - self._distort(ideal - step)) / (2 * _NEWTON_STEP)
            for step in _NEWTON_STEP * np.eye(2)
        )
        return by_x, by_y

    def _is_unfolded(
        self, ideal: NDArray[np.float64], distorted: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Tell where the lens model runs outwards at (N, 2) points, on their side of the axis.

        Far off the axis its polynomials turn back, which no lens does: what lies there would be
        seen mirrored. Some turn outwards again still farther out; those points pass.
        """
        if not self.is_distorted:
            return np.ones(len(ideal), bool)
        by_x, by_y = self._distortion_slopes(ideal)
        return (_determinant(by_x, by_y) > 0) & ((ideal * distorted).sum(axis=1) >= 0)

    def _to_pixels(self, normalized: NDArray[np.float64]) -> NDArray[np.float64]:
        return normalized * (self.fx, self.fy) + (self.cx, self.cy)

    def _from_pixels(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        return (pixels - (self.cx, self.cy)) / (self.fx, self.fy)

    def _distort(self, ideal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Apply the lens to (N, 2) x/z, y/z; the formulas are those of OpenCV's manual."""
        if not self.is_distorted:
            return ideal
        if self.distortion_model == 'equidistant':
            radius = np.linalg.norm(ideal, axis=1)
            angle = np.arctan(radius)
            polynomial = np.polynomial.polynomial.polyval(angle**2, (1.0, *self.distortion))
            scale = np.divide(
                angle * polynomial, radius, out=np.ones_like(radius), where=radius > 1e-12
            )
            return ideal * scale[:, None]
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.distortion, *(0.0,) * 4)[:8]
        x, y = ideal[:, 0], ideal[:, 1]
        xy, r2 = x * y, x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        radial = radial / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        return np.column_stack(
            [
                x * radial + 2 * p1 * xy + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * xy,
            ]
        )


def _determinant(by_x: NDArray[np.float64], by_y: NDArray[np.float64]) -> NDArray[np.float64]:
    return by_x[:, 0] * by_y[:, 1] - by_x[:, 1] * by_y[:, 0]


def _normalized(points_camera: ArrayLike) -> NDArray[np.float64]:
    """Give (N, 2) x/z, y/z; NaN for points that are not in front of the camera."""
    points = np.asarray(points_camera, dtype=np.float64).reshape(-1, 3)
    depth = np.where(points[:, 2] > 0, points[:, 2], np.nan)
    return points[:, :2] / depth[:, None]
