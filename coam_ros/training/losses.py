"""Losses of the light CoAM network on sampled correspondences."""

from __future__ import annotations

from dataclasses import dataclass

from coam_ros.training.network import CANDIDATE_STEP, DESCRIPTOR_STRIDE
from coam_ros.training.pairs import MATCHED, UNMATCHED
import torch
from torch.nn import functional


@dataclass(frozen=True)
class LossConfig:
    """Constants of the loss.

    Attributes:
        temperature: cosine similarities are divided by this before a softmax over the map.
        exclusion_px: candidates nearer than this to the true match are no negatives.
        correct_px: the best candidate counts as right within this distance: 1.5 of their spacing.
        refine_window: side of the window of the sub-pixel soft-argmax [cells], as deployed.
        refine_weight: weight of the sub-pixel loss (L1, in cells).
        distinctiveness_weight: weight of the distinctiveness' cross-entropy.
    """

    temperature: float = 0.07
    exclusion_px: float = 7.0
    correct_px: float = 12.0
    refine_window: int = 5
    refine_temperature: float = 0.05
    refine_weight: float = 0.3
    distinctiveness_weight: float = 0.2


def sample_map(feature_map: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Sample a stride-4 map bilinearly: (B, C, H, W) at (B, N, 2) image pixels -> (B, N, C)."""
    height, width = feature_map.shape[-2:]
    # Cell i covers pixels 4 i .. 4 i + 3: its centre lies at 4 i + 1.5.
    cells = (points + 0.5) / DESCRIPTOR_STRIDE
    extent = torch.tensor([width, height], dtype=points.dtype, device=points.device)
    grid = (cells / extent * 2 - 1)[:, None]
    sampled = functional.grid_sample(feature_map, grid, align_corners=False, padding_mode='border')
    return sampled[:, :, 0].transpose(1, 2)


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


def pair_loss(
    maps0: tuple[torch.Tensor, torch.Tensor],
    maps1: tuple[torch.Tensor, torch.Tensor],
    batch: dict[str, torch.Tensor],
    config: LossConfig,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Compute the loss of a batch of pairs, both directions.

    Args:
        maps0: unit descriptors (B, 64, H, W) and distinctiveness logits (B, 1, H, W) of the first
            images, conditioned on the second.
        maps1: the same of the second images, conditioned on the first.
        batch: tensors of `PairMixture`.
        config: constants.

    Returns:
        Scalar loss, and figures for the log (shares and means, per matched point).
    """
    points0, points1, state = batch['points0'], batch['points1'], batch['state']
    forward = _one_direction(maps0, maps1, points0, points1, state, batch['is_precise'], config)
    # Backwards only the matched points are known in image 1.
    matched_only = torch.where(state == UNMATCHED, -1, state)
    backward = _one_direction(
        maps1, maps0, points1, points0, matched_only, batch['is_precise'], config
    )
    total = 0.5 * (forward[0] + backward[0])
    figures = {key: 0.5 * (forward[1][key] + backward[1][key]) for key in forward[1]}
    return total, figures


def _one_direction(
    maps0: tuple[torch.Tensor, torch.Tensor],
    maps1: tuple[torch.Tensor, torch.Tensor],
    points0: torch.Tensor,
    points1: torch.Tensor,
    state: torch.Tensor,
    is_precise: torch.Tensor,
    config: LossConfig,
) -> tuple[torch.Tensor, dict[str, float]]:
    matched = state == MATCHED
    known = matched | (state == UNMATCHED)
    descriptors0 = functional.normalize(sample_map(maps0[0], points0), dim=-1)

    # The candidates of the deployed matcher: every second cell. The nearest one is the target, so
    # that a point is found although it falls between candidates; refinement does the rest.
    candidates = maps1[0][:, :, ::CANDIDATE_STEP, ::CANDIDATE_STEP]
    centres = _candidate_centres(candidates.shape[-2:], points1)
    similarity = torch.einsum('bnc,bcp->bnp', descriptors0, candidates.flatten(2))
    distance_px = torch.cdist(points1, centres[None].expand(len(points1), -1, -1))
    target = distance_px.argmin(dim=-1)
    ignored = distance_px < config.exclusion_px
    ignored = ignored.scatter(2, target[..., None], value=False)
    logits = similarity.masked_fill(ignored, -1e4) / config.temperature
    cross_entropy = functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(), reduction='none'
    ).reshape(matched.shape)
    descriptor_loss = _mean(cross_entropy, matched)

    with torch.no_grad():
        best = similarity.argmax(dim=-1)
        error_px = distance_px.gather(2, best[..., None])[..., 0]
        is_right = matched & (error_px < config.correct_px)
    logit = sample_map(maps0[1], points0)[..., 0]
    distinctiveness_loss = _mean(
        functional.binary_cross_entropy_with_logits(logit, is_right.float(), reduction='none'),
        known,
    )

    refinable = matched & is_precise[:, None]
    true_cells = (points1 + 0.5) / DESCRIPTOR_STRIDE - 0.5
    nearest = true_cells.round().long()
    nearest = nearest + torch.randint_like(nearest, -1, 2)
    refined = soft_argmax(
        descriptors0, maps1[0], nearest, config.refine_window, config.refine_temperature
    )
    refine_error = (refined - true_cells).abs().sum(-1).clamp(max=2.0)
    refine_loss = _mean(refine_error, refinable)

    loss = (
        descriptor_loss
        + config.refine_weight * refine_loss
        + config.distinctiveness_weight * distinctiveness_loss
    )
    return loss, {
        'descriptor': descriptor_loss.item(),
        'distinctiveness': distinctiveness_loss.item(),
        'refine_cells': refine_loss.item(),
        'right': _mean(is_right.float(), matched).item(),
    }


def _candidate_centres(shape: torch.Size, like: torch.Tensor) -> torch.Tensor:
    """Pixel centres (P, 2) of the candidate cells, row by row."""
    rows, columns = torch.meshgrid(
        torch.arange(shape[0], device=like.device),
        torch.arange(shape[1], device=like.device),
        indexing='ij',
    )
    offset = (DESCRIPTOR_STRIDE - 1) / 2
    cells = torch.stack([columns, rows], dim=-1).reshape(-1, 2).to(like.dtype)
    return cells * CANDIDATE_STEP * DESCRIPTOR_STRIDE + offset


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
