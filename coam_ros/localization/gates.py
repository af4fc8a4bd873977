"""Whether a pose has enough behind it to be published."""

from __future__ import annotations

import math

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.localization.config import LocalizationConfig
from coam_ros.localization.result import FailureReason, RelocalizationResult
import numpy as np
from numpy.typing import NDArray

# Side of a block that the matcher selects as a whole, in pixels of a 640 x 480 image.
_BLOCK_PX = 8
_COVERAGE_CELLS = 8
# Fewer may lie in a cell by chance: docs/experiments.md.
_MIN_BLOCKS_IN_CELL = 5


def inlier_blocks(pixels: NDArray[np.floating], camera: PinholeCamera) -> NDArray[np.float64]:
    """Find the blocks of the image that hold inliers.

    Matches of one place of the image with several keyframes see one thing: as evidence they count
    once, or a pose would get the surer the more keyframes are asked.

    Args:
        pixels: (N, 2) of inliers, inside the image.
        camera: of the image.

    Returns:
        (B, 2) centres [px] of the blocks, of 8 x 8 px at 640 x 480.
    """
    block_px = _BLOCK_PX * camera.pixels_per_nominal
    blocks = np.floor((np.asarray(pixels, dtype=np.float64).reshape(-1, 2) + 0.5) / block_px)
    return (np.unique(blocks, axis=0) + 0.5) * block_px - 0.5


def measure_coverage(blocks: NDArray[np.float64], camera: PinholeCamera) -> float:
    """Measure over how much of the image inliers spread.

    Args:
        blocks: (B, 2), see `inlier_blocks`.
        camera: of the image.

    Returns:
        Share of the square cells, 8 along the longer side, that hold at least 5 blocks, 0..1.
    """
    cell_px = max(camera.width, camera.height) / _COVERAGE_CELLS
    num_columns = math.ceil(camera.width / cell_px)
    num_rows = math.ceil(camera.height / cell_px)
    # The image reaches half a pixel beyond the centres of its outermost pixels.
    cells = np.floor((blocks + 0.5) / cell_px)
    columns, rows = np.clip(cells, 0, (num_columns - 1, num_rows - 1)).astype(np.int64).T
    num_blocks = np.bincount(columns + num_columns * rows, minlength=num_columns * num_rows)
    return float((num_blocks >= _MIN_BLOCKS_IN_CELL).mean())


def add_map_uncertainty(
    covariance: NDArray[np.float64], config: LocalizationConfig
) -> NDArray[np.float64]:
    """Add what the map itself does not know to the (6, 6) covariance of a pose."""
    variances = np.repeat(
        [config.map_position_std_m**2, np.radians(config.map_rotation_std_deg) ** 2], 3
    )
    return covariance + np.diag(variances)


def largest_stds(covariance: NDArray[np.float64]) -> tuple[float, float]:
    """Give the standard deviations of a (6, 6) covariance in its worst directions [m, deg]."""
    position_m, rotation_rad = (
        float(np.sqrt(np.linalg.eigvalsh(part)[-1]))
        for part in (covariance[:3, :3], covariance[3:, 3:])
    )
    return position_m, math.degrees(rotation_rad)


def find_weakness(
    result: RelocalizationResult, covariance: NDArray[np.float64], config: LocalizationConfig
) -> tuple[FailureReason, str] | None:
    """Find the first gate that a pose does not pass.

    Args:
        result: the evidence for the pose.
        covariance: (6, 6), of the pose, with the map's uncertainty.
        config: with the thresholds.

    Returns:
        The reason with its numbers for people, or None when the pose is good.
    """
    if result.num_inlier_blocks < config.min_inliers:
        return FailureReason.TOO_FEW_INLIERS, (
            f'{result.num_inliers} inliers in {result.num_inlier_blocks} places of the image, '
            f'wanted {config.min_inliers} places: the view is hardly in the map. Map this place, '
            'or come closer to a mapped view.'
        )
    if result.inlier_ratio < config.min_inlier_ratio:
        return FailureReason.LOW_INLIER_RATIO, (
            f'{result.inlier_ratio:.0%} of {result.num_matches} matches are inliers, wanted '
            f'{config.min_inlier_ratio:.0%}: the view only resembles the map. Map this place.'
        )
    if result.coverage < config.min_coverage:
        return FailureReason.LOW_COVERAGE, (
            f'Inliers on {result.coverage:.1%} of the image, wanted {config.min_coverage:.1%}: '
            'all of them lie on one thing, which may have been moved. Turn the camera to see more.'
        )
    position_std_m, rotation_std_deg = largest_stds(covariance)
    if (
        position_std_m > config.max_position_std_m
        or rotation_std_deg > config.max_rotation_std_deg
    ):
        return FailureReason.HIGH_UNCERTAINTY, (
            f'Uncertain by {position_std_m:.3f} m and {rotation_std_deg:.2f} deg, wanted at most '
            f'{config.max_position_std_m} m and {config.max_rotation_std_deg} deg: the landmarks '
            'leave the pose open. Come closer, or see more of the mapped place.'
        )
    return None
