"""Where exactly a match lies, and how likely it is right.

Shape legend: B pairs, N matches, C channels, H and W of an image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.training.sampling import cells_to_pixels, gather_window, sample_map, soft_argmax
import torch
from torch import nn
from torch.nn import functional

MAP_STRIDE = 4
# Side of the window that is searched [cells]: 12 px around the middle of the block.
_WINDOW = 6
_HIDDEN_DIM = 128
# Largest correction of the search's result along x and y [px].
_MAX_CORRECTION_PX = 2.0
# Brings inputs of the hidden layer to the order of one.
_SIMILARITY_FACTOR, _LOGIT_FACTOR = 2.0, 0.3
# Inverse temperature of the search where none is learned.
_PLAIN_SHARPNESS = 20.0


class KeyframePoints(NamedTuple):
    """The end of a match that stays.

    Attributes:
        descriptors: (B, N, C) unit, conditioned on the query.
        distinctiveness_logits: (B, N).
    """

    descriptors: torch.Tensor
    distinctiveness_logits: torch.Tensor


class QueryMaps(NamedTuple):
    """The image in which the other end is searched.

    Attributes:
        descriptors: (B, C, H / 4, W / 4) unit, conditioned on the keyframe.
        distinctiveness_logits: (B, 1, H / 4, W / 4).
    """

    descriptors: torch.Tensor
    distinctiveness_logits: torch.Tensor


class RefinedMatches(NamedTuple):
    """What became of matches.

    Attributes:
        searched_points: (B, N, 2) query pixels as the search found them.
        points: (B, N, 2) query pixels, corrected.
        confidence_logits: (B, N), that a match is right to 3 px.
    """

    searched_points: torch.Tensor
    points: torch.Tensor
    confidence_logits: torch.Tensor


class MatchRefiner(nn.Module):
    """Refines matches and judges them.

    A soft-argmax over the conditioned descriptors around the matched block gives a position; a
    small network that sees both descriptors and the similarities of the window corrects it and
    says how likely it is right. The keyframe's point stays in the middle of its block.

    A second search, on features at stride 2, was tried and lost against the first one: see
    docs/experiments.md.
    """

    def __init__(self, descriptor_dim: int) -> None:
        """Build."""
        super().__init__()
        known = 2 * descriptor_dim + _WINDOW**2 + 2 + 2
        self.hidden = nn.Sequential(
            nn.Linear(known, _HIDDEN_DIM),
            nn.ReLU(),
            nn.Linear(_HIDDEN_DIM, _HIDDEN_DIM),
            nn.ReLU(),
        )
        # Confidence, and the correction along x and y.
        self.head = nn.Linear(_HIDDEN_DIM, 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(_PLAIN_SHARPNESS)))

    def forward(
        self, keyframe: KeyframePoints, query: QueryMaps, blocks: torch.Tensor
    ) -> RefinedMatches:
        """Refine.

        Args:
            keyframe: the ends that stay.
            query: where the other ends are searched.
            blocks: (B, N, 2) int64 column and row of the query's blocks, where they start.
        """
        searched, similarity = _search(keyframe, query, blocks, self.log_sharpness.exp())
        # What follows learns from where the search ended, it does not move that.
        start = searched.detach()
        known = [
            keyframe.descriptors,
            sample_map(query.descriptors, start, MAP_STRIDE),
            similarity * _SIMILARITY_FACTOR,
            keyframe.distinctiveness_logits[..., None] * _LOGIT_FACTOR,
            sample_map(query.distinctiveness_logits, start, MAP_STRIDE) * _LOGIT_FACTOR,
            (start - cells_to_pixels(blocks, BLOCK_PX)) / BLOCK_PX,
        ]
        answer = self.head(self.hidden(torch.cat(known, dim=-1)))
        points = start + _MAX_CORRECTION_PX * answer[..., 1:].tanh()
        return RefinedMatches(searched, points, answer[..., 0])


class PlainRefiner(nn.Module):
    """The search alone, and the paper's score; nothing is learned."""

    def __init__(self, distinctiveness_exponent: float) -> None:
        """Take the exponent of the network's config."""
        super().__init__()
        self.exponent = distinctiveness_exponent

    def forward(
        self, keyframe: KeyframePoints, query: QueryMaps, blocks: torch.Tensor
    ) -> RefinedMatches:
        """Refine as `MatchRefiner` does; the confidence is cosine x distinctiveness x the same."""
        points, _ = _search(keyframe, query, blocks, torch.tensor(_PLAIN_SHARPNESS))
        at_query = sample_map(query.descriptors, points, MAP_STRIDE)
        cosine = (keyframe.descriptors * functional.normalize(at_query, dim=-1)).sum(-1)
        logits = sample_map(query.distinctiveness_logits, points, MAP_STRIDE)[..., 0]
        score = cosine * joint_distinctiveness(
            logits, keyframe.distinctiveness_logits, self.exponent
        )
        return RefinedMatches(points, points, torch.logit(score, eps=1e-6))


def joint_distinctiveness(
    logits0: torch.Tensor, logits1: torch.Tensor, exponent: float
) -> torch.Tensor:
    """Multiply the distinctiveness of both ends; see `NetworkConfig.distinctiveness_exponent`."""
    return (logits0.sigmoid() * logits1.sigmoid()) ** exponent


def _search(
    keyframe: KeyframePoints, query: QueryMaps, blocks: torch.Tensor, sharpness: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give expected query pixels (B, N, 2), and the similarities in the window."""
    per_block = BLOCK_PX // MAP_STRIDE
    corners = blocks * per_block - (_WINDOW - per_block) // 2
    similarity, cells = gather_window(query.descriptors, keyframe.descriptors, corners, _WINDOW)
    return cells_to_pixels(soft_argmax(similarity * sharpness, cells), MAP_STRIDE), similarity
