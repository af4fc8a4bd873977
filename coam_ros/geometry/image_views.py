"""Views of images: where a linear map puts a pixel, and the warp that draws it.

A view is a (3, 3) matrix from pixels of an image to pixels of the view.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Points = NDArray[np.float32]


def rotation_2d(angle_deg: float) -> Matrix:
    """Give the (2, 2) turn by an angle: from x towards y, so clockwise as images are seen."""
    angle = np.deg2rad(angle_deg)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def resize_view(scale_x: float, scale_y: float | None = None) -> Matrix:
    """Give the view of an image that was resized; see geometry.camera on resizing.

    Args:
        scale_x: width of the resized image over that of the image.
        scale_y: the same of the heights; None where it is `scale_x`.

    Returns:
        (3, 3) float64.
    """
    scale = np.array([scale_x, scale_x if scale_y is None else scale_y])
    view = np.diag([*scale, 1.0])
    view[:2, 2] = (scale - 1) / 2
    return view


def warp(image: Image, view: Matrix, size: tuple[int, int]) -> Image:
    """Draw a view; a shrinking one is blurred first so that nothing aliases.

    Args:
        image: (H, W, 3) uint8.
        view: (3, 3) from pixels of the image to pixels of the view.
        size: (width, height) of the view [px].

    Returns:
        (height, width, 3) uint8, black where the view reaches past the image.
    """
    scale = np.sqrt(abs(np.linalg.det(view[:2, :2] / view[2, 2])))
    if scale < 0.5 and min(image.shape[:2]) > 1:
        # Halving first makes the blur small, and costs little.
        halved = np.asarray(
            cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8
        )
        # By exactly a half for odd sides too, whose last pixel alone may be lost.
        return warp(halved, view @ np.linalg.inv(resize_view(0.5)), size)
    if scale < 0.7:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.45 / scale), np.uint8)
    return np.asarray(cv2.warpPerspective(image, view, size, flags=cv2.INTER_LINEAR), np.uint8)


def apply_homography(points: ArrayLike, homography: ArrayLike) -> NDArray[np.float64]:
    """Carry pixels (N, 2) by a (3, 3) homography; NaN where they are NaN or go to infinity."""
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    homography = np.asarray(homography, dtype=np.float64)
    homogeneous = points @ homography[:, :2].T + homography[:, 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        moved = homogeneous[:, :2] / homogeneous[:, 2:]
    return np.where(np.isfinite(moved), moved, np.nan)


def transform(points: ArrayLike, view: ArrayLike) -> Points:
    """Carry pixels (N, 2) by a view: `apply_homography` in float32, as images' points are."""
    return apply_homography(points, view).astype(np.float32)


def is_inside(points: ArrayLike, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which (N, 2) pixels lie between the centres of the border pixels; NaN does not."""
    points = np.asarray(points)
    return np.all((points >= 0) & (points <= np.array(size) - 1), axis=1)
