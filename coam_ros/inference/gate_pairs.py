"""The fixed pairs of the gate: drawn planes seen from two sides, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
import functools

from coam_ros.inference.gate import GatePair
import cv2
import numpy as np
from numpy.typing import NDArray

_NUM_PAIRS = 8
_NUM_PATCHES = 140
# Cells of the noise under the patches [px], and its amplitude in grey levels.
_NOISE = ((160, 30.0), (24, 18.0), (6, 10.0))


def fixed_pairs(size: tuple[int, int]) -> Iterator[GatePair]:
    """Draw the pairs.

    They show no real place: a backend that answers as the reference does on them computes the
    same, which is all that the gate asks. How good the model is, `coam bench` tells.

    Args:
        size: (width, height) of the images, multiples of the model's [px].
    """
    width, height = size
    # All that an engine may be asked for: padding, as of a camera of another aspect, and a batch.
    special = {0: {'query_size': (width - 32, height - 96)}, 1: {'batch': 3}}
    for seed, pair in enumerate(draw_pairs(size, range(_NUM_PAIRS))):
        yield replace(pair, **special.get(seed, {}))


def draw_pairs(size: tuple[int, int], seeds: Iterable[int]) -> Iterator[GatePair]:
    """Draw a pair for each seed; `size` as of `fixed_pairs`."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        plane = _draw_plane(rng, size)
        to_plane = _random_homography(rng, size)
        seen = cv2.warpPerspective(
            plane,
            to_plane,
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        query = seen * rng.uniform(0.7, 1.2) + rng.normal(0, 3, plane.shape)
        yield GatePair(
            f'plane {seed}',
            query.clip(0, 255).astype(np.uint8),
            plane.clip(0, 255).astype(np.uint8),
            functools.partial(_transfer_error_px, to_plane),
        )


def _draw_plane(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Draw (H, W, 3): uneven ground with rectangles of all sizes and colours, some askew."""
    width, height = size
    plane = np.full((height, width, 3), 128.0, np.float32)
    for cell_px, amplitude in _NOISE:
        shape = (height // cell_px + 2, width // cell_px + 2)
        cells = rng.normal(0.0, amplitude, (*shape, 3)).astype(np.float32)
        plane += cv2.resize(cells, (shape[1] * cell_px, shape[0] * cell_px))[:height, :width]
    for _ in range(_NUM_PATCHES):
        _draw_patch(plane, rng)
    return plane


def _draw_patch(plane: NDArray[np.float32], rng: np.random.Generator) -> None:
    centre_x, centre_y = rng.uniform((0, 0), plane.shape[1::-1])
    half_x, half_y = np.exp(rng.uniform(np.log(3), np.log(60), 2))
    angle_rad = rng.uniform(0, np.pi)
    reach = np.hypot(half_x, half_y)
    left, top = max(int(centre_x - reach), 0), max(int(centre_y - reach), 0)
    part = plane[top : int(centre_y + reach) + 2, left : int(centre_x + reach) + 2]
    y, x = np.indices(part.shape[:2])
    x, y = x + left - centre_x, y + top - centre_y
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    inside = (np.abs(cos * x + sin * y) < half_x) & (np.abs(cos * y - sin * x) < half_y)
    # Not quite opaque, so that the ground goes on inside.
    part[inside] = 0.3 * part[inside] + 0.7 * rng.uniform(0, 255, 3)


def _random_homography(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Give (3, 3), pixels of the query to pixels of the plane: its corners moved."""
    corners = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]) * size
    moved = corners + rng.uniform(-0.12, 0.12, (4, 2)) * size
    return cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))


def _transfer_error_px(
    to_plane: NDArray[np.float64],
    query_points: NDArray[np.float32],
    keyframe_points: NDArray[np.float32],
) -> NDArray[np.float64]:
    moved = np.column_stack([query_points, np.ones(len(query_points))]) @ to_plane.T
    return np.linalg.norm(moved[:, :2] / moved[:, 2:] - keyframe_points, axis=1)
