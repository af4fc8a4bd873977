"""Cross-entropy over the map, sub-pixel and distinctiveness losses at known correspondences."""

from __future__ import annotations

from dataclasses import dataclass

from coam_ros.training.data.pairs import MATCHED, UNMATCHED
from coam_ros.training.losses.sampling import (
    cell_centres,
    masked_mean,
    pixels_to_cells,
    sample_descriptors,
    sample_map,
    soft_argmax,
    step_of,
)
from coam_ros.training.network import DescribedImage
import torch
from torch.nn import functional


@dataclass(frozen=True)
class CrossEntropyConfig:
    """Constants of the loss.

    Attributes:
        temperature: cosine similarities are divided by this before a softmax over the map.
        spacing_px: of the candidates in the other image: as deployed.
        exclusion_px: candidates nearer than this to the true match are no negatives.
        correct_px: the best candidate counts as right within this distance: 1.5 of their spacing.
        refine_window: side of the window of the sub-pixel soft-argmax [cells], as deployed.
        refine_temperature: cosine similarities are divided by this in that window.
        refine_weight: weight of the sub-pixel loss (L1, in cells).
        distinctiveness_weight: weight of the distinctiveness' cross-entropy.
    """

    temperature: float = 0.07
    spacing_px: int = 8
    exclusion_px: float = 7.0
    correct_px: float = 12.0
    refine_window: int = 5
    refine_temperature: float = 0.05
    refine_weight: float = 0.3
    distinctiveness_weight: float = 0.2


class CrossEntropyLoss:
    """For each point, softmax over the candidates of the other image; both directions."""

    def __init__(self, config: CrossEntropyConfig) -> None:
        """Take the constants."""
        self.config = config

    def __call__(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        batch: dict[str, torch.Tensor],
        output_stride: int,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss; see `Loss`. The batch carries points, their state and precision."""
        points0, points1, state = batch['points0'], batch['points1'], batch['state']
        is_precise = batch['is_precise']
        forward = self._one_direction(
            described0, described1, points0, points1, state, is_precise, output_stride
        )
        # Backwards only the matched points are known in image 1.
        matched_only = torch.where(state == UNMATCHED, -1, state)
        backward = self._one_direction(
            described1, described0, points1, points0, matched_only, is_precise, output_stride
        )
        total = 0.5 * (forward[0] + backward[0])
        figures = {key: 0.5 * (forward[1][key] + backward[1][key]) for key in forward[1]}
        return total, figures

    def _one_direction(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        points0: torch.Tensor,
        points1: torch.Tensor,
        state: torch.Tensor,
        is_precise: torch.Tensor,
        stride: int,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        config = self.config
        matched = state == MATCHED
        known = matched | (state == UNMATCHED)
        descriptors0 = sample_descriptors(described0.descriptors, points0, stride)
        map1 = described1.descriptors

        # The candidates of the deployed matcher. The nearest one is the target, so that a point
        # is found although it falls between candidates; refinement does the rest.
        step = step_of(config.spacing_px, stride)
        candidates = map1[:, :, ::step, ::step]
        centres = cell_centres(map1, stride, step)
        similarity = torch.einsum('bnc,bcp->bnp', descriptors0, candidates.flatten(2))
        distance_px = torch.cdist(points1, centres[None].expand(len(points1), -1, -1))
        target = distance_px.argmin(dim=-1)
        ignored = distance_px < config.exclusion_px
        ignored = ignored.scatter(2, target[..., None], value=False)
        logits = similarity.masked_fill(ignored, -1e4) / config.temperature
        cross_entropy = functional.cross_entropy(
            logits.flatten(0, 1), target.flatten(), reduction='none'
        ).reshape(matched.shape)
        descriptor_loss = masked_mean(cross_entropy, matched)

        with torch.no_grad():
            best = similarity.argmax(dim=-1)
            error_px = distance_px.gather(2, best[..., None])[..., 0]
            is_right = matched & (error_px < config.correct_px)
        logit = sample_map(described0.distinctiveness_logits, points0, stride)[..., 0]
        distinctiveness_loss = masked_mean(
            functional.binary_cross_entropy_with_logits(logit, is_right.float(), reduction='none'),
            known,
        )

        true_cells = pixels_to_cells(points1, stride)
        nearest = true_cells.round().long()
        nearest = nearest + torch.randint_like(nearest, -1, 2)
        refined = soft_argmax(
            descriptors0, map1, nearest, config.refine_window, config.refine_temperature
        )
        refine_error = (refined - true_cells).abs().sum(-1).clamp(max=2.0)
        refine_loss = masked_mean(refine_error, matched & is_precise[:, None])

        loss = (
            descriptor_loss
            + config.refine_weight * refine_loss
            + config.distinctiveness_weight * distinctiveness_loss
        )
        return loss, {
            'descriptor': descriptor_loss.detach(),
            'distinctiveness': distinctiveness_loss.detach(),
            'refine_cells': refine_loss.detach(),
            'right': masked_mean(is_right.float(), matched),
        }
