"""The supervised loss of the paper: hinges with hard negatives, distinctiveness, visibility.

Shape legend: B pairs, P positives of a pair, N random points of the other image, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from coam_ros.training.config_file import check_least
from coam_ros.training.data.pairs import MATCHED, UNMATCHED
from coam_ros.training.network import DescribedImage
from coam_ros.training.sampling import masked_mean, sample_descriptors, sample_map
import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class PaperLossConfig:
    """Constants of the loss, at the values that the authors trained with.

    Attributes:
        num_positives: matched points of a pair that count, at most; 512.
        num_random: random points of the other image, negatives of each positive; 512. One more
            negative is the match of another positive, so that each has 513.
        exclusion_px: negatives nearer than this to the true match are ignored; 8. Their code has
            8 / 256 of coordinates that go from -1 to 1, which is 4 px.
        margin: of both hinges, in squared distance; 1.
        num_hardest: nearest negatives in the first hinge; 3.
        confuser_distance: a random point of the other image with a smaller squared distance
            than this could be taken for the match; 1.
        tau: exponent of their number in the wanted distinctiveness; 0.25.
        distinctiveness_weight: 0.1.
        visibility_weight: 0.1.
    """

    num_positives: int = 512
    num_random: int = 512
    exclusion_px: float = 8.0
    margin: float = 1.0
    num_hardest: int = 3
    confuser_distance: float = 1.0
    tau: float = 0.25
    distinctiveness_weight: float = 0.1
    visibility_weight: float = 0.1

    def __post_init__(self) -> None:
        """Check ranges; raises a ValueError that names the field."""
        check_least('loss', self, num_positives=1, num_random=1, num_hardest=1)
        if self.num_hardest > self.num_random + 1:
            raise ValueError(
                f'loss.num_hardest is {self.num_hardest}, wanted at most the '
                f'{self.num_random + 1} negatives of a positive; lower it or raise num_random.'
            )


class PaperLoss:
    """The loss of Wiles et al., CVPR 2021, as in their published training code.

    With d the squared L2 distance of unit descriptors, d+ to the true match, d- to a negative:

    - mean d+,
    - mean over the hardest negatives of max(0, margin + d+ - d-), where d+ is a constant,
    - mean over all negatives of max(0, margin - d-),
    - weighted, mean |r - m^-tau|: r the distinctiveness, m the number of random points of the
      other image that could be taken for the match, at least 1,
    - weighted, the binary cross-entropy of the second head (`binary_class`) against the overlap.

    Our reading, where the authors' code does otherwise for its own reasons:

    - The positives of a pair share their random points, so that one matrix product gives all
      distances and no descriptor is gathered per negative; there each has its own window of one
      random order, of nearly the same points.
    - Both directions count; there only the first image's points do.
    - m is counted for all positives among all random points, each once; there for 32 positives,
      and with most points 32 times, so that the distinctiveness wanted is down to 32^-tau of ours.
    - Means run over all the points of a batch; there some run over each pair first.
    - The overlap is known at the batch's matched and unmatched points and not densely; the
      latter exist in the first image only, so this term has one direction, as there.
    - The map that is sampled between cells is that of the unit descriptors; there the raw one.
    """

    def __init__(self, config: PaperLossConfig) -> None:
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
        """Compute the loss; see `Loss`. The batch carries points and their state."""
        points0, points1, state = batch['points0'], batch['points1'], batch['state']
        matched = state == MATCHED
        limit = self.config.num_positives
        matched0, matched1, valid = _choose(points0, points1, matched, limit)
        forward = self._one_direction(
            described0, described1, matched0, matched1, valid, output_stride
        )
        backward = self._one_direction(
            described1, described0, matched1, matched0, valid, output_stride
        )
        terms = {key: 0.5 * (forward[key] + backward[key]) for key in forward}
        loss = (
            terms['positive']
            + terms['hardest']
            + terms['negative']
            + self.config.distinctiveness_weight * terms['distinctiveness']
        )
        if described0.visibility_logits is not None:
            logits = sample_map(described0.visibility_logits, points0, output_stride)[..., 0]
            terms['visibility'] = masked_mean(
                functional.binary_cross_entropy_with_logits(
                    logits, matched.float(), reduction='none'
                ),
                matched | (state == UNMATCHED),
            )
            loss = loss + self.config.visibility_weight * terms['visibility']
        return loss, {key: value.detach() for key, value in terms.items()}

    def _one_direction(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        points0: torch.Tensor,
        points1: torch.Tensor,
        valid: torch.Tensor,
        stride: int,
    ) -> dict[str, torch.Tensor]:
        config = self.config
        random1 = _random_points(described1.descriptors, config.num_random, stride)
        anchors = sample_descriptors(described0.descriptors, points0, stride)
        matches = sample_descriptors(described1.descriptors, points1, stride)
        others = sample_descriptors(described1.descriptors, random1, stride)
        distances_BPN = squared_distances(anchors, others)
        terms = hinge_terms(anchors, matches, distances_BPN, points1, random1, valid, config)
        distinctiveness = sample_map(
            torch.sigmoid(described0.distinctiveness_logits), points0, stride
        )[..., 0]
        target = distinctiveness_target(distances_BPN, config)
        terms['distinctiveness'] = masked_mean((distinctiveness - target).abs(), valid)
        return terms


def squared_distances(descriptors0: torch.Tensor, descriptors1: torch.Tensor) -> torch.Tensor:
    """Give |a - b|^2 of all pairs of unit descriptors, (B, P, D) and (B, N, D) -> (B, P, N)."""
    return 2.0 - 2.0 * (descriptors0 @ descriptors1.transpose(1, 2))


def hinge_terms(
    anchors: torch.Tensor,
    matches: torch.Tensor,
    distances_BPN: torch.Tensor,
    points: torch.Tensor,
    random_points: torch.Tensor,
    valid: torch.Tensor,
    config: PaperLossConfig,
) -> dict[str, torch.Tensor]:
    """Compute the terms that train the descriptors.

    Args:
        anchors: (B, P, D) unit descriptors of the positives in the one image.
        matches: (B, P, D) of their true matches in the other image.
        distances_BPN: squared distances of the anchors to the other image's random points.
        points: (B, P, 2) pixels of the true matches.
        random_points: (B, N, 2) pixels of the random points.
        valid: (B, P) bool, the positives that exist: the first ones of each pair.
        config: constants.

    Returns:
        Scalars positive, hardest and negative, and the share of positives that are nearer to
        their match than to any negative as right.
    """
    positive = (anchors - matches).square().sum(-1)
    # The negative of the overlap: the next positive's match. Their order is random.
    num_valid = valid.sum(1, keepdim=True).clamp(min=1)
    following = (torch.arange(valid.shape[1], device=valid.device) + 1) % num_valid
    following = following[..., None]
    partners = matches.gather(1, following.expand_as(matches))
    partner_px = (points - points.gather(1, following.expand_as(points))).norm(dim=-1)
    distances = torch.cat(
        [distances_BPN, (anchors - partners).square().sum(-1, keepdim=True)], dim=-1
    )
    distance_px = torch.cat([torch.cdist(points, random_points), partner_px[..., None]], dim=-1)
    counts = (distance_px >= config.exclusion_px) & valid[..., None]

    # The hinge falls with the distance: the hardest negatives are the nearest ones.
    nearest = distances.masked_fill(~counts, torch.inf)
    nearest = nearest.topk(config.num_hardest, dim=-1, largest=False).values
    hardest = (config.margin + positive.detach()[..., None] - nearest).clamp(min=0)
    return {
        'positive': masked_mean(positive, valid),
        'hardest': masked_mean(hardest.mean(-1), valid),
        'negative': masked_mean((config.margin - distances).clamp(min=0), counts),
        'right': masked_mean((positive < nearest[..., 0]).float(), valid),
    }


@torch.no_grad()
def distinctiveness_target(distances_BPN: torch.Tensor, config: PaperLossConfig) -> torch.Tensor:
    """Give the distinctiveness (B, P) that squared distances to random points ask for."""
    confusers = (distances_BPN < config.confuser_distance).sum(-1)
    return confusers.clamp(min=1).to(distances_BPN.dtype).pow(-config.tau)


def _choose(
    points0: torch.Tensor, points1: torch.Tensor, matched: torch.Tensor, limit: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Choose matched points in random order, those that do not count behind."""
    order = torch.rand(matched.shape, device=matched.device).masked_fill(~matched, -1.0)
    order, index = order.topk(min(limit, matched.shape[1]), dim=1)
    at = index[..., None].expand(-1, -1, 2)
    return points0.gather(1, at), points1.gather(1, at), order >= 0


def _random_points(feature_map: torch.Tensor, count: int, stride: int) -> torch.Tensor:
    """Draw pixels (B, count, 2) anywhere in the images that a map describes."""
    height, width = feature_map.shape[-2:]
    last = feature_map.new_tensor([width * stride - 1, height * stride - 1])
    return torch.rand(len(feature_map), count, 2, device=feature_map.device) * last
