"""Epipolar lines of points, and how far other points lie from them.

Shape legend: B pairs, N points.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def epipolar_lines(
    points0: torch.Tensor, fundamental: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the lines of image 1 on which points of image 0 must lie.

    Args:
        points0: (B, N, 2) pixels.
        fundamental: (B, 3, 3), p1^T F p0 = 0; of any scale, zero where the cameras only turned.

    Returns:
        Lines (B, N, 3) with a unit normal, and (B, N) bool whether there is one.
    """
    homogeneous = functional.pad(points0, (0, 1), value=1.0)
    lines = homogeneous @ fundamental.transpose(1, 2)
    normal = lines[..., :2].norm(dim=-1)
    # At the epipole its terms cancel out and leave nothing but rounding.
    terms = homogeneous.abs() @ fundamental.abs().transpose(1, 2)
    is_line = normal > 1e-6 * terms[..., :2].norm(dim=-1)
    return lines / torch.where(is_line, normal, 1.0)[..., None], is_line


def crosses_image(lines: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Tell which of (B, N, 3) lines cross an image of this width and height [px]: (B, N) bool."""
    last_x, last_y = (side - 1.0 for side in size)
    corners = lines.new_tensor(
        [[0.0, 0.0, 1.0], [last_x, 0.0, 1.0], [0.0, last_y, 1.0], [last_x, last_y, 1.0]]
    )
    sides = lines @ corners.T
    return (sides.amin(-1) <= 0) & (sides.amax(-1) >= 0)


def distance_to_lines(points: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
    """Measure the distance of (B, N, 2) points to (B, N, 3) lines with a unit normal."""
    return ((points * lines[..., :2]).sum(-1) + lines[..., 2]).abs()
