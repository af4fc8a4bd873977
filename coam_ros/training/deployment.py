"""The two networks as they are deployed: encoder, and pair matcher with selection inside.

Shape legend: K keyframes, N selected blocks (of a query also Q), C channels, P positions of a map.
"""

from __future__ import annotations

from typing import NamedTuple

from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.inference.model import FEATURE_STRIDES
from coam_ros.training.decoders import cells_inside, View
from coam_ros.training.global_descriptor import GlobalDescriptor
from coam_ros.training.network import CoamNetwork, DescribedImage
from coam_ros.training.refiner import joint_distinctiveness, KeyframePoints, MAP_STRIDE, QueryMaps
from coam_ros.training.sampling import cells_to_pixels, pool_descriptors
import torch
from torch import nn
from torch.nn import functional

# A distinctiveness that no sigmoid gives: what lies in the padding comes last.
_NEVER = -1e4


class DeployedEncoder(nn.Module):
    """uint8 image in, feature pyramid (float16) and global descriptor out."""

    def __init__(self, network: CoamNetwork, global_descriptor: GlobalDescriptor) -> None:
        """Take the trained network in evaluation mode."""
        super().__init__()
        self.network = network
        self.global_descriptor = global_descriptor

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode (1, H, W, 3) uint8 RGB.

        float16 halves the memory of the keyframe cache; the features are sums of normalised
        activations, far inside its range. The cast comes first: TensorRT takes bytes as an input
        but computes nothing with them.
        """
        features, local = self.network.encode(image.float().permute(0, 3, 1, 2))
        return (
            *(features[stride].half() for stride in FEATURE_STRIDES),
            self.global_descriptor(local),
        )


class Selection(NamedTuple):
    """The most distinctive blocks of K images.

    Attributes:
        descriptors: (K, N, C) unit.
        blocks: (K, N, 2) int64 column and row.
        distinctiveness_logits: (K, N).
        is_image: (K, N) bool, false in the padding.
    """

    descriptors: torch.Tensor
    blocks: torch.Tensor
    distinctiveness_logits: torch.Tensor
    is_image: torch.Tensor


class DeployedPairMatcher(nn.Module):
    """Features of a query and of K keyframes in, N scored matches a keyframe out."""

    def __init__(self, network: CoamNetwork, num_matches: int) -> None:
        """Take the trained network in evaluation mode."""
        super().__init__()
        self.network = network
        self.num_matches = num_matches

    def forward(
        self,
        query_4: torch.Tensor,
        query_8: torch.Tensor,
        query_16: torch.Tensor,
        query_32: torch.Tensor,
        query_size: torch.Tensor,
        keyframe_4: torch.Tensor,
        keyframe_8: torch.Tensor,
        keyframe_16: torch.Tensor,
        keyframe_32: torch.Tensor,
        keyframe_size: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Match.

        Args:
            query_4: features of the query at stride 4, (1, C, h, w) float16.
            query_8: at stride 8.
            query_16: at stride 16.
            query_32: at stride 32.
            query_size: (1, 2) float32 width and height without padding [px].
            keyframe_4: features of the keyframes at stride 4, (K, C, h', w') float16.
            keyframe_8: at stride 8.
            keyframe_16: at stride 16.
            keyframe_32: at stride 32.
            keyframe_size: (K, 2) float32 width and height without padding [px].

        Returns:
            Query pixels (K, N, 2); keyframe pixels (K, N, 2); scores (K, N): the probability
            that the match is right to 3 px, 0 = no match; and (K, N) similarities of the blocks
            and products of their distinctiveness, the paper's score when multiplied.
        """
        num_keyframes = keyframe_4.shape[0]
        query = _by_stride(query_4, query_8, query_16, query_32)
        query = {s: x.expand(num_keyframes, -1, -1, -1) for s, x in query.items()}
        keyframe = _by_stride(keyframe_4, keyframe_8, keyframe_16, keyframe_32)
        return self.match(
            View(query, query_size.expand(num_keyframes, -1)), View(keyframe, keyframe_size)
        )

    def match(self, query: View, keyframe: View) -> tuple[torch.Tensor, ...]:
        """Match K queries with K keyframes, whatever the strides of the network's features.

        Returns:
            As `forward`.
        """
        described_query, described_keyframe = self.network.describe_pair(query, keyframe)
        stride = self.network.output_stride
        of_query = self._select(described_query, query.size)
        of_keyframe = self._select(described_keyframe, keyframe.size)

        # OpenVINO finds where a column has its largest value in a quarter of the time that it
        # takes for a row; and what the largest values are, sooner than where. Equal ones, which
        # bfloat16 makes, are all mutual.
        similarity_KQN = of_query.descriptors @ of_keyframe.descriptors.transpose(1, 2)
        similarity, partner = similarity_KQN.max(dim=1)
        is_mutual = similarity == similarity_KQN.amax(dim=2).gather(1, partner)
        is_match = is_mutual & of_keyframe.is_image & of_query.is_image.gather(1, partner)

        refined = self.network.refiner(
            KeyframePoints(of_keyframe.descriptors, of_keyframe.distinctiveness_logits),
            QueryMaps(
                pool_descriptors(described_query.descriptors, stride, MAP_STRIDE),
                functional.avg_pool2d(
                    described_query.distinctiveness_logits, MAP_STRIDE // stride
                ),
            ),
            of_query.blocks.gather(1, _for_channels(partner, 2)),
        )
        score = torch.sigmoid(refined.confidence_logits)
        score = torch.where(is_match, score, torch.zeros_like(score))
        # At the border the window reaches into the padding; a point stays on its image.
        query_points = refined.points.clamp(min=0.0).minimum(query.size[:, None] - 1)
        keyframe_points = cells_to_pixels(of_keyframe.blocks.float(), BLOCK_PX)
        distinctiveness = joint_distinctiveness(
            of_keyframe.distinctiveness_logits,
            of_query.distinctiveness_logits.gather(1, partner),
            self.network.config.distinctiveness_exponent,
        )
        return query_points, keyframe_points, score, similarity, distinctiveness

    def _select(self, described: DescribedImage, size: torch.Tensor) -> Selection:
        """Keep the N most distinctive blocks, those in the padding last."""
        stride = self.network.output_stride
        descriptors = pool_descriptors(described.descriptors, stride, BLOCK_PX)
        logits = functional.avg_pool2d(described.distinctiveness_logits, BLOCK_PX // stride)[:, 0]
        height, width = logits.shape[-2:]
        is_image = cells_inside(height, width, BLOCK_PX, size)
        logits = torch.where(is_image, logits, torch.full_like(logits, _NEVER))
        kept, index = torch.topk(logits.flatten(1), self.num_matches, dim=1)
        flat = descriptors.flatten(2).transpose(1, 2)
        # The exporter divides integers as floats, and a GPU may do that a last digit too low: the
        # half keeps the first block of a row from falling into the row above.
        row = torch.floor((index + 0.5) / width).long()
        return Selection(
            flat.gather(1, _for_channels(index, flat.shape[-1])),
            torch.stack([index - row * width, row], dim=-1),
            kept,
            is_image.flatten(1).gather(1, index),
        )


def _by_stride(*features: torch.Tensor) -> dict[int, torch.Tensor]:
    return {stride: x.float() for stride, x in zip(FEATURE_STRIDES, features, strict=True)}


def _for_channels(index: torch.Tensor, channels: int) -> torch.Tensor:
    """Repeat (K, N) indices for gathering all channels: (K, N, channels)."""
    return index[..., None].expand(-1, -1, channels)
