"""The two networks as they are deployed: encoder, and pair matcher with selection inside.

Shape legend: K keyframes, N selected points, C channels, P positions of a map.
"""

from __future__ import annotations

from coam_ros.training.global_descriptor import GlobalDescriptor
from coam_ros.training.losses import CrossEntropyConfig
from coam_ros.training.losses.sampling import soft_argmax
from coam_ros.training.network import (
    ATTENTION_STRIDES,
    CANDIDATE_STEP,
    CoamNetwork,
    DESCRIPTOR_DIM,
    DESCRIPTOR_STRIDE,
)
import torch
from torch import nn

FEATURE_STRIDES = (4, 8, 16, 32)


class DeployedEncoder(nn.Module):
    """uint8 image in, feature pyramid (float16) and global descriptor out."""

    def __init__(self, network: CoamNetwork, global_descriptor: GlobalDescriptor) -> None:
        """Take the trained network in evaluation mode."""
        super().__init__()
        self.network = network
        self.global_descriptor = global_descriptor

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode (1, H, W, 3) uint8 RGB; see `CoamNetwork.encode`.

        float16 halves the memory of the keyframe cache; the features are sums of normalised
        activations, far inside its range.
        """
        features, local = self.network.encode(image.permute(0, 3, 1, 2).float())
        return (
            *(features[stride].half() for stride in FEATURE_STRIDES),
            self.global_descriptor(local),
        )


class DeployedPairMatcher(nn.Module):
    """Features of a query and of K keyframes in, N scored matches a keyframe out."""

    def __init__(self, network: CoamNetwork, num_matches: int, loss: CrossEntropyConfig) -> None:
        """Take the trained network and the refinement's window from the loss that trained it."""
        super().__init__()
        self.network = network
        self.num_matches = num_matches
        self.window = loss.refine_window
        self.temperature = loss.refine_temperature

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
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
            Query pixels (K, N, 2), keyframe pixels (K, N, 2), scores (K, N), 0 = no match.
        """
        num_keyframes = keyframe_4.shape[0]
        query = _by_stride(query_4, query_8, query_16, query_32)
        query = {s: x.expand(num_keyframes, -1, -1, -1) for s, x in query.items()}
        query_size = query_size.expand(num_keyframes, -1)
        keyframe = _by_stride(keyframe_4, keyframe_8, keyframe_16, keyframe_32)

        described0 = self.network.describe(query, keyframe, _masks(keyframe, keyframe_size))
        described1 = self.network.describe(keyframe, query, _masks(query, query_size))
        map0, logits0 = described0.descriptors, described0.distinctiveness_logits
        map1, logits1 = described1.descriptors, described1.distinctiveness_logits
        descriptors0, cells0, distinct0 = self._select(map0, logits0, query_size)
        descriptors1, cells1, distinct1 = self._select(map1, logits1, keyframe_size)

        similarity_KNN = descriptors0 @ descriptors1.transpose(1, 2)
        best, partner0 = similarity_KNN.max(dim=2)
        partner1 = similarity_KNN.argmax(dim=1)
        index = torch.arange(self.num_matches, device=best.device)
        is_mutual = partner1.gather(1, partner0) == index
        score = best * distinct0 * distinct1.gather(1, partner0)
        score = torch.where(is_mutual, score.clamp(min=0.0), torch.zeros_like(score))

        matched_cells = cells1.gather(1, partner0[..., None].expand(-1, -1, 2))
        refined = soft_argmax(descriptors0, map1, matched_cells, self.window, self.temperature)
        # At the border the window reaches into the padding; a point stays on its image.
        refined_px = _to_pixels(refined).clamp(min=0.0).minimum(keyframe_size[:, None] - 1)
        return _to_pixels(cells0.float()), refined_px, score

    def _select(
        self, descriptor_map: torch.Tensor, logits: torch.Tensor, size: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keep the N most distinctive candidate cells, none in the padding.

        Returns:
            Descriptors (K, N, C), cells (K, N, 2) int64 column and row, distinctiveness (K, N).
        """
        step = CANDIDATE_STEP
        height, width = descriptor_map.shape[-2:]
        distinctiveness = torch.sigmoid(logits[:, 0]) * _inside(
            height, width, DESCRIPTOR_STRIDE, size
        )
        kept, index = torch.topk(
            distinctiveness[:, ::step, ::step].flatten(1), self.num_matches, dim=1
        )
        candidates = descriptor_map[:, :, ::step, ::step].flatten(2).transpose(1, 2)
        descriptors = candidates.gather(1, index[..., None].expand(-1, -1, DESCRIPTOR_DIM))
        # Integer division and its remainder by hand: a float division would lose the low digits
        # of flat indices in fp16.
        width = width // step
        row = torch.div(index, width, rounding_mode='floor')
        column = index - row * width
        return descriptors, torch.stack([column, row], dim=-1) * step, kept


def _by_stride(*features: torch.Tensor) -> dict[int, torch.Tensor]:
    return {stride: x.float() for stride, x in zip(FEATURE_STRIDES, features, strict=True)}


def _masks(features: dict[int, torch.Tensor], size: torch.Tensor) -> dict[int, torch.Tensor]:
    """Positions of the attention's strides that are not padding: (K, P) bool by stride."""
    return {
        stride: _inside(*features[stride].shape[-2:], stride, size).flatten(1)
        for stride in ATTENTION_STRIDES
    }


def _inside(height: int, width: int, stride: int, size: torch.Tensor) -> torch.Tensor:
    """Cells (K, height, width) whose centre lies inside (K, 2) width and height [px]."""
    centre = (stride - 1) / 2
    columns = torch.arange(width, device=size.device) * stride + centre
    rows = torch.arange(height, device=size.device) * stride + centre
    inside_x = columns[None] < size[:, :1]
    inside_y = rows[None] < size[:, 1:]
    return inside_y[:, :, None] & inside_x[:, None, :]


def _to_pixels(cells: torch.Tensor) -> torch.Tensor:
    return (cells + 0.5) * DESCRIPTOR_STRIDE - 0.5
