"""Reading of maps at pixels, back from maps to pixels, and means over what counts.

Shape legend: B pairs, N points, C channels, H and W of a map, P of its cells.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def pool_descriptors(descriptors: torch.Tensor, stride: int, target: int) -> torch.Tensor:
    """Average (B, C, H, W) descriptors to a larger stride and make them unit length again."""
    if stride == target:
        return descriptors
    return functional.normalize(functional.avg_pool2d(descriptors, target // stride), dim=1)


def sample_map(feature_map: torch.Tensor, points: torch.Tensor, stride: int) -> torch.Tensor:
    """Read a map between its cells, bilinearly.

    Args:
        feature_map: (B, C, H, W).
        points: (B, N, 2) pixels of the image; outside of it the border counts.
        stride: of the map [px].

    Returns:
        (B, N, C).
    """
    height, width = feature_map.shape[-2:]
    # Cell i covers pixels stride * i .. stride * (i + 1) - 1: its centre lies in their middle.
    extent = torch.tensor([width, height], dtype=points.dtype, device=points.device) * stride
    grid = ((points + 0.5) / extent * 2 - 1)[:, None]
    sampled = functional.grid_sample(feature_map, grid, align_corners=False, padding_mode='border')
    return sampled[:, :, 0].transpose(1, 2)


def sample_descriptors(
    descriptors: torch.Tensor, points: torch.Tensor, stride: int
) -> torch.Tensor:
    """Read a map of descriptors as `sample_map` does and make the result unit length again."""
    return functional.normalize(sample_map(descriptors, points, stride), dim=-1)


def cells_to_pixels(cells: torch.Tensor, stride: int) -> torch.Tensor:
    """Give the pixels of (fractional) cells; a whole cell is its centre."""
    return (cells + 0.5) * stride - 0.5


def cell_centres(feature_map: torch.Tensor, stride: int, step: int) -> torch.Tensor:
    """Give the centres of every `step`-th cell of a map, row by row: (P, 2) pixels."""
    height, width = feature_map.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(0, height, step, device=feature_map.device),
        torch.arange(0, width, step, device=feature_map.device),
        indexing='ij',
    )
    cells = torch.stack([columns, rows], dim=-1).reshape(-1, 2).to(feature_map.dtype)
    return cells_to_pixels(cells, stride)


def step_of(spacing_px: int, stride: int) -> int:
    """Give the step in cells that leaves this spacing.

    Raises:
        ValueError: the map has no cells with that spacing.
    """
    if spacing_px % stride:
        raise ValueError(
            f'A map of stride {stride} px has no cells {spacing_px} px apart; give the loss a '
            'spacing_px that is a multiple of network.output_stride.'
        )
    return spacing_px // stride


def gather_window(
    feature_map: torch.Tensor, vectors: torch.Tensor, corners: torch.Tensor, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multiply vectors with all cells of a window of their own.

    Args:
        feature_map: (B, C, H, W).
        vectors: (B, N, C).
        corners: (B, N, 2) int64 column and row of the windows' first cells; what lies outside of
            the map is replaced by its border.
        window: side of the windows [cells].

    Returns:
        Products (B, N, window ** 2), and the cells' columns and rows (B, N, window ** 2, 2) as
        floats.
    """
    batch, channels, height, width = feature_map.shape
    reach = torch.arange(window, device=corners.device)
    dy, dx = torch.meshgrid(reach, reach, indexing='ij')
    columns = (corners[..., :1] + dx.flatten()).clamp(0, width - 1)
    rows = (corners[..., 1:] + dy.flatten()).clamp(0, height - 1)
    # Whole rows of one matrix: a gather along an axis takes OpenVINO several times as long.
    cells = feature_map.permute(0, 2, 3, 1).reshape(-1, channels)
    first = torch.arange(batch, device=corners.device)[:, None, None] * (height * width)
    index = first + rows * width + columns
    near = cells.index_select(0, index.flatten()).reshape(*rows.shape, channels)
    products = (near * vectors[:, :, None]).sum(-1)
    return products, torch.stack([columns, rows], dim=-1).to(vectors.dtype)


def soft_argmax(logits: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Find the expected cell of windows such as `gather_window` gives.

    Args:
        logits: (B, N, P) of each cell: its similarity, times the sharpness of the search.
        cells: (B, N, P, 2) columns and rows.

    Returns:
        (B, N, 2) mean under the softmax of the logits [cells, fractional].
    """
    weight = functional.softmax(logits, dim=-1)
    return (weight[..., None] * cells).sum(-2)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Average the values where the mask holds; 0 with a valid graph where it nowhere does."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
