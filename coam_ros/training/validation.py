"""Judges a network by the matches of the deployed matcher, on pairs with known geometry.

Shape legend: N selected points, M known points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coam_ros.training.data.pairs import Batch, IGNORED, MATCHED
from coam_ros.training.decoders import View
from coam_ros.training.deployment import DeployedPairMatcher
from coam_ros.training.distributed import Processes
from coam_ros.training.epipolar import distance_to_lines, epipolar_lines
import torch

RIGHT_PX = (3, 5)
# A match is judged where a known point lies this near to its query point: the known points are
# centres of blocks or tracks of structure from motion, and the rest of the way is carried
# over unchanged, which at twice the scale is wrong by this.
_REACH_PX = 1.5


@dataclass
class Judgement:
    """What the validations of a training have said so far.

    Attributes:
        first: figures of the first one, as `validate` gives them; None before it.
        best: figures of the one with the highest score; None before the first one.
        best_step: step of the training at the best one.
        since: how many came after the best one.
    """

    first: dict[str, float] | None = None
    best: dict[str, float] | None = None
    best_step: int = 0
    since: int = 0

    def update(self, figures: dict[str, float], step: int) -> bool:
        """Take the figures of a validation at a step; returns whether it is the best so far."""
        self.since += 1
        self.first = self.first or figures
        is_best = self.best is None or figures['score'] > self.best['score']
        if is_best:
            self.best, self.best_step, self.since = figures, step, 0
        return is_best

    def is_out_of_patience(self, patience: int | None) -> bool:
        """Tell whether this many validations in a row were not the best; None waits for ever."""
        return patience is not None and self.since >= patience

    def table(self) -> list[str]:
        """Compare the first validation, which there must be, and the best; a line a figure."""
        best = f'step {self.best_step}'
        return [
            f'{"validation":16} {"before":>10} {best:>12}',
            *(
                f'{name:16} {self.first[name]:10.3f} {value:12.3f}'
                for name, value in self.best.items()
            ),
        ]


@torch.no_grad()
def validate(
    matcher: DeployedPairMatcher, pairs: Sequence[Batch], processes: Processes
) -> dict[str, float]:
    """Match pairs and count what is right.

    Args:
        matcher: with its network, in evaluation mode.
        pairs: this process's share of them; each a batch of one, as `PairMixture` gives it.
        processes: which all do their share.

    Returns:
        For each distance t of `RIGHT_PX`: `precision_{t}px`, the share of the judged matches
        that are right, `right_{t}px`, their number a pair; `judged`, matches a pair whose truth
        is known; and `score`, precision_3px * right_3px, which grows with both.
    """
    counts = torch.zeros(2 + len(RIGHT_PX), dtype=torch.float64)
    for pair in pairs:
        pair = {key: value.to(processes.device) for key, value in pair.items()}
        points0, points1, scores = _match(matcher, pair)
        is_match = scores > 0
        is_judged, error_px = judge(points0[is_match], points1[is_match], pair)
        right = [(is_judged & (error_px < t)).sum() for t in RIGHT_PX]
        counts += torch.stack([torch.ones_like(right[0]), is_judged.sum(), *right]).cpu()
    num_pairs, judged, *right = processes.all_reduce(counts).tolist()
    figures = {'judged': judged / num_pairs}
    for t, number in zip(RIGHT_PX, right, strict=True):
        figures[f'precision_{t}px'] = number / max(judged, 1)
        figures[f'right_{t}px'] = number / num_pairs
    figures['score'] = figures['precision_3px'] * figures['right_3px']
    return figures


def judge(
    points0: torch.Tensor, points1: torch.Tensor, pair: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare matches with what is known of a pair.

    Args:
        points0: (N, 2) pixels of matches in image 0.
        points1: (N, 2) their pixels in image 1.
        pair: a batch of one, with correspondences or with a fundamental matrix.

    Returns:
        (N,) bool whether the truth is known, and (N,) error [px]: the distance to the true
        match, infinite where image 1 does not show the point; or to the epipolar line.
    """
    if 'fundamental' in pair:
        lines, is_line = epipolar_lines(points0[None], pair['fundamental'])
        error_px = distance_to_lines(points1[None], lines).masked_fill(~is_line, torch.inf)
        return is_line[0], error_px[0]
    known = pair['state'][0] != IGNORED
    known0, known1 = pair['points0'][0][known], pair['points1'][0][known]
    if not len(known0):
        nothing = torch.zeros(len(points0), dtype=torch.bool, device=points0.device)
        return nothing, torch.full_like(points0[:, 0], torch.inf)
    distance_px, nearest = torch.cdist(points0, known0).min(dim=1)
    true1 = known1[nearest] + points0 - known0[nearest]
    is_seen = pair['state'][0][known][nearest] == MATCHED
    error_px = (points1 - true1).norm(dim=1).masked_fill(~is_seen, torch.inf)
    return distance_px < _REACH_PX, error_px


def _match(
    matcher: DeployedPairMatcher, pair: Batch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Match as deployed: pixels (N, 2) of both images, scores (N,)."""
    features, _ = matcher.network.encode(torch.cat([pair['image0'], pair['image1']]).float())
    height, width = pair['image0'].shape[-2:]
    size = torch.tensor([[width, height]], dtype=torch.float32, device=pair['image0'].device)
    image0, image1 = (View({s: x[i : i + 1] for s, x in features.items()}, size) for i in range(2))
    # Image 0 is the keyframe: its points stay in the middle of their blocks, as the known ones.
    points1, points0, scores, _, _ = matcher.match(image1, image0)
    return points0[0], points1[0], scores[0]
