"""Cross-entropy over the map, refinement, distinctiveness and confidence at known points."""

from __future__ import annotations

from dataclasses import dataclass

from coam_ros.training.data.pairs import IGNORED, MATCHED, UNMATCHED
from coam_ros.training.network import DescribedImage
from coam_ros.training.refiner import KeyframePoints, MAP_STRIDE, QueryMaps
from coam_ros.training.sampling import (
    BLOCK_PX,
    cell_centres,
    cells_to_pixels,
    masked_mean,
    pool_descriptors,
    sample_descriptors,
    sample_map,
)
import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class CrossEntropyConfig:
    """Constants of the loss.

    Attributes:
        temperature: cosine similarities are divided by this before a softmax over the map.
        exclusion_px: candidates nearer than this to the true match are no negatives.
        correct_px: the best candidate counts as right within this distance: 1.5 blocks.
        distinctiveness_weight: weight of the distinctiveness' cross-entropy on "the best
            candidate was right".
        search_weight: weight of the search's error, in cells of stride 4.
        max_error_cells: larger errors of the search count as this and teach nothing.
        correction_weight: weight of the corrected point's error e, as e / (e + 1 px).
        reach_px: the correction learns from starts no farther than this from the truth.
        confident_px: a match is right within this distance: what the confidence says.
        confidence_weight: weight of the confidence's cross-entropy.
    """

    temperature: float = 0.06
    exclusion_px: float = 10.0
    correct_px: float = 12.0
    distinctiveness_weight: float = 0.3
    search_weight: float = 0.5
    max_error_cells: float = 3.0
    correction_weight: float = 0.5
    reach_px: float = 6.0
    confident_px: float = 3.0
    confidence_weight: float = 0.3


class CrossEntropyLoss:
    """For each point, softmax over the blocks of the other image; both directions.

    Where the network has a refiner, what the matcher would have found in the second image is
    refined and judged too.
    """

    def __init__(self, config: CrossEntropyConfig) -> None:
        """Take the constants."""
        self.config = config

    def __call__(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        batch: dict[str, torch.Tensor],
        output_stride: int,
        refiner: nn.Module | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss; see `Loss`. The batch carries points, their state and precision."""
        points0, points1, state = batch['points0'], batch['points1'], batch['state']
        is_precise = batch['is_precise'][:, None]
        forward, figures, found = self._one_direction(
            described0, described1, points0, points1, state, output_stride
        )
        # Backwards only the matched points are known in image 1.
        matched_only = torch.where(state == UNMATCHED, IGNORED, state)
        backward, backward_figures, _ = self._one_direction(
            described1, described0, points1, points0, matched_only, output_stride
        )
        loss = 0.5 * (forward + backward)
        figures = {key: 0.5 * (figures[key] + backward_figures[key]) for key in figures}
        if refiner is not None:
            more, more_figures = self._refine(
                described0, described1, points0, points1, state, is_precise, found, refiner
            )
            loss, figures = loss + more, figures | more_figures
        return loss, figures

    def _one_direction(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        points0: torch.Tensor,
        points1: torch.Tensor,
        state: torch.Tensor,
        stride: int,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Give the loss, figures, and the best block of each point, (B, N) of its flat map."""
        config = self.config
        matched = state == MATCHED
        known = matched | (state == UNMATCHED)
        descriptors0 = sample_descriptors(described0.descriptors, points0, stride)

        # The candidates of the deployed matcher. The nearest one is the target, so that a point
        # is found although it falls between candidates; refinement does the rest.
        candidates = pool_descriptors(described1.descriptors, stride, BLOCK_PX)
        centres = cell_centres(candidates, BLOCK_PX, 1)
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
        loss = descriptor_loss + config.distinctiveness_weight * distinctiveness_loss
        figures = {
            'descriptor': descriptor_loss.detach(),
            'distinctiveness': distinctiveness_loss.detach(),
            'right': masked_mean(is_right.float(), matched),
        }
        return loss, figures, best

    def _refine(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        points0: torch.Tensor,
        points1: torch.Tensor,
        state: torch.Tensor,
        is_precise: torch.Tensor,
        found: torch.Tensor,
        refiner: nn.Module,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Refine what the matcher would have found, with the first image as the keyframe.

        Not the other way round: the points of the first image are centres of blocks, so as targets
        they would teach that every point is the centre of its block.
        """
        config = self.config
        matched = state == MATCHED
        width = described1.descriptors.shape[-1] * MAP_STRIDE // BLOCK_PX
        blocks = torch.stack([found % width, found // width], dim=-1)
        start_px = (cells_to_pixels(blocks, BLOCK_PX) - points1).norm(dim=-1)
        is_right = matched & (start_px < config.correct_px)
        refined = refiner(
            KeyframePoints(
                sample_descriptors(described0.descriptors, points0, MAP_STRIDE),
                sample_map(described0.distinctiveness_logits, points0, MAP_STRIDE)[..., 0],
            ),
            QueryMaps(described1.descriptors, described1.distinctiveness_logits),
            blocks,
        )
        searched_px = _distance(refined.searched_points, points1)
        search_loss = masked_mean(
            (searched_px / MAP_STRIDE).clamp(max=config.max_error_cells), is_right & is_precise
        )
        # Saturates: a point that is 1 px off gains more from a tenth than one that is 5 px off.
        error_px = _distance(refined.points, points1)
        is_near = is_right & is_precise & (searched_px.detach() < config.reach_px)
        correction_loss = masked_mean(error_px / (error_px + 1.0), is_near)
        is_exact = matched & (error_px.detach() < config.confident_px)
        confidence_loss = masked_mean(
            functional.binary_cross_entropy_with_logits(
                refined.confidence_logits, is_exact.float(), reduction='none'
            ),
            (matched | (state == UNMATCHED)) & is_precise,
        )
        loss = (
            config.search_weight * search_loss
            + config.correction_weight * correction_loss
            + config.confidence_weight * confidence_loss
        )
        return loss, {
            'search_cells': search_loss.detach(),
            'correction': correction_loss.detach(),
            'confidence': confidence_loss.detach(),
            'exact': masked_mean(is_exact.float(), matched & is_precise),
        }


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of (B, N, 2) points, with a gradient at 0 too."""
    return ((a - b) ** 2).sum(-1).add(1e-4).sqrt()
