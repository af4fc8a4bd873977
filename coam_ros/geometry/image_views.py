"""Views of images: where a linear map puts a pixel, and the warp that draws it.

A view is a (3, 3) matrix from pixels of an image to pixels of the view.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Points = NDArray[np.float32]


def rotation_2d(angle_deg: float) -> Matrix:
    """Give the (2, 2) turn by an angle: from x towards y, so clockwise as images are seen."""
    angle = np.deg2rad(angle_deg)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def resize_view(factor_x: float, factor_y: float) -> Matrix:
    """Give the view of an image that was resized by these factors, by the project's convention."""
    return np.array(
        [[factor_x, 0, factor_x / 2 - 0.5], [0, factor_y, factor_y / 2 - 0.5], [0, 0, 1]]
    )


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
        ratios = np.array(halved.shape[1::-1]) / np.array(image.shape[1::-1])
        return warp(halved, view @ np.linalg.inv(resize_view(*ratios)), size)
    if scale < 0.7:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.45 / scale), np.uint8)
    return np.asarray(cv2.warpPerspective(image, view, size, flags=cv2.INTER_LINEAR), np.uint8)


def transform(points: NDArray[np.floating], view: NDArray[np.floating]) -> Points:
    """Carry (N, 2) pixels by a view; NaN stays NaN."""
    homogeneous = points.astype(np.float64) @ view[:, :2].T + view[:, 2]
    return (homogeneous[:, :2] / homogeneous[:, 2:]).astype(np.float32)


def is_inside(points: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which (N, 2) pixels lie between the centres of the border pixels; NaN does not."""
    return np.all((points >= 0) & (points <= np.array(size) - 1), axis=1)
