"""Pictures of matches, for people."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

_GAP_PX = 4
# Lines lie on sub-pixel positions: OpenCV takes fixed-point numbers with this many bits.
_SHIFT = 4
_GREEN, _RED = (80, 220, 80), (230, 60, 50)


def draw_matches(
    image0: NDArray[np.uint8],
    image1: NDArray[np.uint8],
    points0: ArrayLike,
    points1: ArrayLike,
    inlier_mask: ArrayLike | None = None,
    *,
    max_matches: int = 150,
) -> NDArray[np.uint8]:
    """Draw two images side by side with lines between matched points.

    Args:
        image0: (H, W, 3) RGB or (H, W) grey uint8, drawn left.
        image1: the same, drawn right; scaled to the height of image 0.
        points0: (N, 2) pixels of image 0.
        points1: (N, 2) pixels of image 1.
        inlier_mask: (N,) bool; inliers are drawn green and on top, the others red and thin. None
            colours the lines by their place in image 0, which shows crossings.
        max_matches: more are thinned evenly, so that the picture stays readable.

    Returns:
        (H, W', 3) uint8 RGB.
    """
    left, right = _as_rgb(image0), _as_rgb(image1)
    scale = left.shape[0] / right.shape[0]
    size = (max(1, round(right.shape[1] * scale)), left.shape[0])
    right = np.asarray(cv2.resize(right, size), np.uint8)
    gap = np.full((left.shape[0], _GAP_PX, 3), 255, np.uint8)
    canvas = np.hstack([left, gap, right])

    starts = np.asarray(points0, dtype=np.float64).reshape(-1, 2)
    # Pixel centres: see geometry.camera on resizing.
    ends = (np.asarray(points1, dtype=np.float64).reshape(-1, 2) + 0.5) * scale - 0.5
    ends[:, 0] += left.shape[1] + _GAP_PX
    chosen = np.flatnonzero(np.isfinite(starts).all(axis=1) & np.isfinite(ends).all(axis=1))
    if len(chosen) > max_matches:
        chosen = chosen[np.linspace(0, len(chosen) - 1, max_matches).astype(int)]
    if inlier_mask is None:
        colours = _colours_by_place(starts, left.shape[1])
    else:
        is_inlier = np.asarray(inlier_mask, dtype=bool)
        colours = np.where(is_inlier[:, None], _GREEN, _RED)
        # Inliers last, hence on top.
        chosen = chosen[np.argsort(is_inlier[chosen], kind='stable')]
    for i in chosen:
        _draw_match(canvas, starts[i], ends[i], colours[i].tolist())
    return canvas


def _draw_match(
    canvas: NDArray[np.uint8],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    colour: list[int],
) -> None:
    fixed_start, fixed_end = (np.rint(p * 2**_SHIFT).astype(int).tolist() for p in (start, end))
    cv2.line(canvas, fixed_start, fixed_end, colour, 1, cv2.LINE_AA, _SHIFT)
    for point in (fixed_start, fixed_end):
        cv2.circle(canvas, point, 2 << _SHIFT, colour, -1, cv2.LINE_AA, _SHIFT)


def _colours_by_place(points: NDArray[np.float64], width: int) -> NDArray[np.uint8]:
    """Colour points by their column, from red over green to violet."""
    if not len(points):
        return np.empty((0, 3), np.uint8)
    column = np.nan_to_num(points[:, 0]) / max(width - 1, 1)
    level = np.clip(column * 255, 0, 255).astype(np.uint8).reshape(-1, 1)
    blue_green_red = np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_RAINBOW), np.uint8)
    return blue_green_red.reshape(-1, 3)[:, ::-1]


def _as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
