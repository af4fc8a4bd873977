"""Reading of maps at pixels, back from maps to pixels, and means over what counts.

Shape legend: B pairs, N points, C channels, H and W of a map, P positions of a map.
"""

from __future__ import annotations

import torch
from torch.nn import functional


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


def pixels_to_cells(points: torch.Tensor, stride: int) -> torch.Tensor:
    """Give the fractional cells of pixels."""
    return (points + 0.5) / stride - 0.5


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


def soft_argmax(
    descriptors: torch.Tensor,
    feature_map: torch.Tensor,
    cells: torch.Tensor,
    window: int,
    temperature: float,
) -> torch.Tensor:
    """Refine matches to sub-pixel: expected position of the similarity in a window.

    Args:
        descriptors: (B, N, C) unit descriptors of the first image's points.
        feature_map: (B, C, H, W) unit descriptors of the second image.
        cells: (B, N, 2) int64 column and row of the window's centre.
        window: side of the window [cells], odd.
        temperature: softmax temperature of the cosine similarity.

    Returns:
        (B, N, 2) expected position [cells, fractional], inside the window.
    """
    batch, _, height, width = feature_map.shape
    reach = torch.arange(window, device=cells.device) - window // 2
    dy, dx = torch.meshgrid(reach, reach, indexing='ij')
    columns = (cells[..., :1] + dx.flatten()).clamp(0, width - 1)
    rows = (cells[..., 1:] + dy.flatten()).clamp(0, height - 1)
    flat = feature_map.flatten(2).transpose(1, 2)
    index = (rows * width + columns).reshape(batch, -1, 1).expand(-1, -1, flat.shape[-1])
    near = flat.gather(1, index).reshape(*rows.shape, flat.shape[-1])
    similarity = (near * descriptors[:, :, None]).sum(-1)
    weight = functional.softmax(similarity / temperature, dim=-1)
    position = torch.stack([columns, rows], dim=-1).to(weight.dtype)
    return (weight[..., None] * position).sum(-2)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Average the values where the mask holds; 0 with a valid graph where it nowhere does."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
