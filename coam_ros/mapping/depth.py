"""Depth images: from PNG counts to metres, and depth at sub-pixel positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Counts that mean "no depth": 0 by nearly all cameras, 65535 by the 7-Scenes recordings.
NO_DEPTH_COUNTS = (0, 65535)
# Largest (far - near) / near around a position; more is an edge, where either surface could be
# meant.
_MAX_RELATIVE_STEP = 0.05


def depth_m_from_counts(counts: NDArray[np.uint16], depth_scale_m: float) -> NDArray[np.float32]:
    """Convert the counts of a 16-bit depth image to metres.

    Args:
        counts: (H, W) uint16; 0 and 65535 mean no depth.
        depth_scale_m: metres a count.

    Returns:
        (H, W) float32 depth along the optical axis [m], NaN where there is none.
    """
    depth_m = counts.astype(np.float32) * np.float32(depth_scale_m)
    depth_m[np.isin(counts, NO_DEPTH_COUNTS)] = np.nan
    return depth_m


def interpolate_depth(depth_m: NDArray[np.float32], pixels: ArrayLike) -> NDArray[np.float64]:
    """Look up depth between the pixels of a depth image, but never across a depth edge.

    The inverse depth of the four pixels around a position is weighted bilinearly, which is exact
    on a plane (1 / z is affine in the pixel there). Pixels without depth are left out; the one
    nearest to the position must have depth.

    Args:
        depth_m: (H, W) float32 depth [m], NaN where there is none.
        pixels: (N, 2) positions x, y; (0, 0) is the centre of the top-left pixel.

    Returns:
        (N,) float64 depth [m]; NaN outside the image, where there is no depth, at an edge and for
        a position that is not finite.
    """
    pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    height, width = depth_m.shape
    # Comparisons with NaN are False, so a position that is not finite counts as outside.
    is_inside = (
        (pixels >= -0.5) & (pixels < np.array([width, height], dtype=np.float64) - 0.5)
    ).all(axis=1)
    inside = np.clip(pixels[is_inside], 0, (width - 1, height - 1))
    corner = np.minimum(np.floor(inside).astype(np.intp), (max(width - 2, 0), max(height - 2, 0)))
    fraction = inside - corner
    columns = np.minimum(corner[:, :1] + (0, 1, 0, 1), width - 1)
    rows = np.minimum(corner[:, 1:] + (0, 0, 1, 1), height - 1)
    weight_x = np.stack([1 - fraction[:, 0], fraction[:, 0]], axis=1)[:, (0, 1, 0, 1)]
    weight_y = np.stack([1 - fraction[:, 1], fraction[:, 1]], axis=1)[:, (0, 0, 1, 1)]
    weights = weight_x * weight_y

    around = depth_m[rows, columns].astype(np.float64)
    has_depth = (around > 0) & (weights > 0)
    nearest = np.argmax(weights, axis=1)
    weights = np.where(has_depth, weights, 0.0)
    inverse = np.divide(1.0, around, out=np.zeros_like(around), where=has_depth)
    near = np.where(has_depth, around, np.inf).min(axis=1)
    far = np.where(has_depth, around, -np.inf).max(axis=1)
    is_usable = has_depth[np.arange(len(inside)), nearest]
    is_usable[is_usable] = (far - near)[is_usable] <= _MAX_RELATIVE_STEP * near[is_usable]

    depth = np.full(len(pixels), np.nan)
    found = np.flatnonzero(is_inside)[is_usable]
    depth[found] = weights[is_usable].sum(axis=1) / (weights * inverse)[is_usable].sum(axis=1)
    return depth
