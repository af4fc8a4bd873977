"""The fixed pairs of the gate: drawn planes seen from two sides, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
import functools

from coam_ros.inference.gate import GatePair
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
        query = _look_at(plane, to_plane) * rng.uniform(0.7, 1.2) + rng.normal(0, 3, plane.shape)
        yield GatePair(
            f'plane {seed}',
            query.clip(0, 255).astype(np.uint8),
            plane.clip(0, 255).astype(np.uint8),
            functools.partial(_transfer_error_px, to_plane),
        )


def _draw_plane(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Draw (H, W, 3): uneven ground with rectangles of all sizes and colours, some askew."""
    width, height = size
    plane = np.full((height, width, 3), 128.0)
    for cell_px, amplitude in _NOISE:
        cells = rng.normal(0.0, amplitude, (height // cell_px + 2, width // cell_px + 2, 3))
        plane += _sample(cells, *(axis / cell_px for axis in np.indices((height, width))[::-1]))
    for _ in range(_NUM_PATCHES):
        _draw_patch(plane, rng)
    return plane


def _draw_patch(plane: NDArray[np.float64], rng: np.random.Generator) -> None:
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
    rows, wanted = [], []
    for (x, y), (u, v) in zip(corners, moved, strict=True):
        rows.append((x, y, 1, 0, 0, 0, -u * x, -u * y))
        rows.append((0, 0, 0, x, y, 1, -v * x, -v * y))
        wanted += [u, v]
    return np.append(np.linalg.solve(rows, wanted), 1.0).reshape(3, 3)


def _look_at(plane: NDArray[np.float64], to_plane: NDArray[np.float64]) -> NDArray[np.float64]:
    y, x = np.indices(plane.shape[:2])
    points = _transfer(to_plane, np.column_stack([x.ravel(), y.ravel()]))
    return _sample(plane, *points.T).reshape(plane.shape)


def _sample(
    image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate (h, w, C) at points of any shape; what lies outside is the border."""
    height, width = image.shape[:2]
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left = np.minimum(x.astype(int), width - 2)
    top = np.minimum(y.astype(int), height - 2)
    right, down = (x - left)[..., None], (y - top)[..., None]
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def _transfer(homography: NDArray[np.float64], points: NDArray) -> NDArray[np.float64]:
    moved = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return moved[:, :2] / moved[:, 2:]


def _transfer_error_px(
    to_plane: NDArray[np.float64],
    query_points: NDArray[np.float32],
    keyframe_points: NDArray[np.float32],
) -> NDArray[np.float64]:
    return np.linalg.norm(_transfer(to_plane, query_points) - keyframe_points, axis=1)
