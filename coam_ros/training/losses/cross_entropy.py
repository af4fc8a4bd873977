"""Cross-entropy over the map, refinement, distinctiveness and confidence at known points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.training.config_file import check_least
from coam_ros.training.data.pairs import IGNORED, MATCHED
from coam_ros.training.network import DescribedImage
from coam_ros.training.refiner import KeyframePoints, MAP_STRIDE, QueryMaps
from coam_ros.training.sampling import (
    cell_centres,
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
        distinctiveness_weight: weight of the distinctiveness' cross-entropy, see
            `CrossEntropyLoss`.
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
    distinctiveness_weight: float = 0.5
    search_weight: float = 0.5
    max_error_cells: float = 3.0
    correction_weight: float = 0.5
    reach_px: float = 6.0
    confident_px: float = 3.0
    confidence_weight: float = 0.3

    def __post_init__(self) -> None:
        """Check ranges; raises a ValueError that names the field."""
        check_least('loss', self, temperature=1e-3)


class _Found(NamedTuple):
    """The best block of each point.

    Attributes:
        index: (B, N) int64 of the other image's flat map.
        is_right: (B, N) bool, within `correct_px`.
    """

    index: torch.Tensor
    is_right: torch.Tensor


class CrossEntropyLoss:
    """For each point, softmax over the blocks of the other image; both directions.

    Where the network has a refiner, what the matcher would have found in the second image is
    refined and judged too.

    The distinctiveness says at each point of an image whether its best block was right. With a
    refiner it says what its product, the rank of a match, is used for: at both ends of the match
    that was found, whether the refined match is right.
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
        known = state != IGNORED
        forward, found0 = self._one_direction(
            described0, described1, points0, points1, state, output_stride
        )
        backward, found1 = self._one_direction(
            described1, described0, points1, points0, state, output_stride
        )
        loss = 0.5 * (forward + backward)
        figures = {'descriptor': loss.detach()}
        if refiner is None:
            # Backwards only the matched points are known in image 1.
            ends = (
                (described0, points0, found0.is_right, known),
                (described1, points1, found1.is_right, state == MATCHED),
            )
        else:
            refinement, refinement_figures, found_points, is_right = self._refine(
                described0, described1, batch, found0, refiner
            )
            loss, figures = loss + refinement, figures | refinement_figures
            ends = (
                (described0, points0, is_right, known),
                (described1, found_points, is_right, known),
            )
        distinctiveness = 0.5 * sum(_distinctiveness_loss(*end, output_stride) for end in ends)
        figures |= {
            'distinctiveness': distinctiveness.detach(),
            'right': masked_mean(
                0.5 * (found0.is_right.float() + found1.is_right.float()), state == MATCHED
            ),
        }
        return loss + self.config.distinctiveness_weight * distinctiveness, figures

    def _one_direction(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        points0: torch.Tensor,
        points1: torch.Tensor,
        state: torch.Tensor,
        stride: int,
    ) -> tuple[torch.Tensor, _Found]:
        """Give the descriptors' loss, and what each point would have found."""
        config = self.config
        matched = state == MATCHED
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
        best = similarity.detach().argmax(dim=-1)
        error_px = distance_px.gather(2, best[..., None])[..., 0]
        is_right = matched & (error_px < config.correct_px)
        return masked_mean(cross_entropy, matched), _Found(best, is_right)

    def _refine(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        batch: dict[str, torch.Tensor],
        found: _Found,
        refiner: nn.Module,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Refine what the matcher would have found, with the first image as the keyframe.

        Not the other way round: the points of the first image are centres of blocks, so as targets
        they would teach that every point is the centre of its block.

        Returns:
            The loss, its parts, the points that were found (B, N, 2), and whether they are right
            (B, N): to `confident_px` where the truth is that precise, else to `correct_px`.
        """
        config = self.config
        points0, points1, state = batch['points0'], batch['points1'], batch['state']
        is_precise = batch['is_precise'][:, None]
        matched = state == MATCHED
        width = described1.descriptors.shape[-1] * MAP_STRIDE // BLOCK_PX
        blocks = torch.stack([found.index % width, found.index // width], dim=-1)
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
            (searched_px / MAP_STRIDE).clamp(max=config.max_error_cells),
            found.is_right & is_precise,
        )
        # Saturates: a point that is 1 px off gains more from a tenth than one that is 5 px off.
        error_px = _distance(refined.points, points1)
        is_near = found.is_right & is_precise & (searched_px.detach() < config.reach_px)
        correction_loss = masked_mean(error_px / (error_px + 1.0), is_near)
        is_exact = matched & (error_px.detach() < config.confident_px)
        confidence_loss = masked_mean(
            functional.binary_cross_entropy_with_logits(
                refined.confidence_logits, is_exact.float(), reduction='none'
            ),
            (state != IGNORED) & is_precise,
        )
        loss = (
            config.search_weight * search_loss
            + config.correction_weight * correction_loss
            + config.confidence_weight * confidence_loss
        )
        figures = {
            'search_cells': search_loss.detach(),
            'correction': correction_loss.detach(),
            'confidence': confidence_loss.detach(),
            'exact': masked_mean(is_exact.float(), matched & is_precise),
        }
        is_right = torch.where(is_precise, is_exact, found.is_right)
        return loss, figures, refined.points.detach(), is_right


def _distinctiveness_loss(
    described: DescribedImage,
    points: torch.Tensor,
    is_right: torch.Tensor,
    known: torch.Tensor,
    stride: int,
) -> torch.Tensor:
    """Cross-entropy of the distinctiveness at (B, N, 2) points on whether they are right."""
    logits = sample_map(described.distinctiveness_logits, points, stride)[..., 0]
    entropy = functional.binary_cross_entropy_with_logits(
        logits, is_right.float(), reduction='none'
    )
    return masked_mean(entropy, known)


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of (B, N, 2) points, with a gradient at 0 too."""
    return ((a - b) ** 2).sum(-1).add(1e-4).sqrt()
