"""The light CoAM network: frozen XFeat encoder, co-attention at strides 32 and 16, U-Net decoder.

Shape legend: B pairs, C channels, H and W of the map at hand, P positions of a map (H * W).
"""

from __future__ import annotations

from dataclasses import dataclass

from coam_ros.training.xfeat import XFeatBackbone
import torch
from torch import nn
from torch.nn import functional

DESCRIPTOR_DIM = 64
DESCRIPTOR_STRIDE = 4
# Every second cell, in both directions, is a candidate for a match.
CANDIDATE_STEP = 2
# Strides at which the two images attend to each other: the two deepest levels, as in Wiles et
# al., CVPR 2021, section 3.
ATTENTION_STRIDES = (32, 16)


@dataclass(frozen=True)
class NetworkConfig:
    """Widths of the light network.

    Attributes:
        attention_dim: channels of the co-attention's queries and keys.
        coarse_dim: decoder channels at strides 32, 16 and 8.
        skip_dim: channels in which the stride-4 features of the encoder enter the decoder.
        fine_dim: decoder channels at stride 4.
    """

    attention_dim: int = 64
    coarse_dim: int = 96
    skip_dim: int = 48
    fine_dim: int = 64


class CoAttention(nn.Module):
    """What the other image shows where it looks like a position of this one.

    Wiles et al., CVPR 2021, eq. 1-2: softmax over the positions of the other image, raw features
    of the other image attended. Unlike the paper's network the dot products are scaled by
    1 / sqrt(channels), which keeps them inside fp16.
    """

    def __init__(self, channels: int, attention_dim: int) -> None:
        """Build the two projections; the same pair serves both directions."""
        super().__init__()
        self.query = nn.Conv2d(channels, attention_dim, 1)
        self.key = nn.Conv2d(channels, attention_dim, 1)

    def forward(
        self, own: torch.Tensor, other: torch.Tensor, other_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend.

        Args:
            own: (B, C, H, W) features of the image being described.
            other: (B, C, H', W') features of the image it is conditioned on.
            other_mask: (B, H' * W') bool, false where the other image is padding; None = no
                padding.

        Returns:
            (B, C, H, W) attended features of the other image.
        """
        query, key, value = (
            x.flatten(2).transpose(1, 2)[:, None]
            for x in (self.query(own), self.key(other), other)
        )
        mask = None if other_mask is None else other_mask[:, None, None, :]
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return attended[:, 0].transpose(1, 2).reshape(own.shape)


class CoamNetwork(nn.Module):
    """Conditioned descriptors and distinctiveness of image pairs.

    `encode` sees one image alone and is all that can be cached; `describe` conditions the
    features of one image on those of another. Everything that does not depend on the other
    image is done in `encode`, because it runs once an image and `describe` twice a pair.
    """

    def __init__(self, backbone: XFeatBackbone, config: NetworkConfig | None = None) -> None:
        """Build on a backbone, which stays frozen."""
        super().__init__()
        config = config or NetworkConfig()
        self.config = config
        self.backbone = backbone.requires_grad_(requires_grad=False)
        channels = backbone.channels
        coarse, skip, fine = config.coarse_dim, config.skip_dim, config.fine_dim
        self.adapter8 = nn.Sequential(_conv(channels[8], coarse), nn.ReLU(), _conv(coarse, coarse))
        self.adapter4 = nn.Sequential(_conv(channels[4], skip), nn.ReLU(), _conv(skip, skip))
        self.attention = nn.ModuleDict(
            {str(s): CoAttention(channels[s], config.attention_dim) for s in ATTENTION_STRIDES}
        )
        self.decode32 = nn.Sequential(_conv(2 * channels[32], coarse), nn.ReLU())
        self.decode16 = nn.Sequential(
            _conv(2 * channels[16] + coarse, coarse), nn.ReLU(), _conv(coarse, coarse), nn.ReLU()
        )
        self.lift8 = _conv(coarse, coarse)
        self.decode8 = nn.Sequential(nn.ReLU(), _conv(coarse, coarse), nn.ReLU())
        self.lift4 = nn.Conv2d(coarse, skip, 1)
        self.decode4 = nn.Sequential(
            nn.ReLU(), _conv(skip, fine), nn.ReLU(), _conv(fine, fine), nn.ReLU()
        )
        self.descriptor_head = nn.Conv2d(fine, DESCRIPTOR_DIM, 1)
        self.distinctiveness_head = nn.Sequential(
            nn.Conv2d(fine, fine // 2, 1), nn.ReLU(), nn.Conv2d(fine // 2, 1, 1)
        )

    def train(self, mode: bool = True) -> CoamNetwork:
        """Switch training mode; the frozen backbone keeps its statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    def encode(self, images: torch.Tensor) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """Compute what depends on one image alone.

        Args:
            images: (B, 3, H, W) float RGB; H and W multiples of 32.

        Returns:
            Features by stride (4: skip_dim, 8: coarse_dim, 16: 64 and 32: 64 channels), and the
            backbone's local features at stride 8 for the global descriptor.
        """
        with torch.no_grad():
            pyramid, fused = self.backbone(images)
        features = {
            4: self.adapter4(pyramid[4]),
            8: self.adapter8(pyramid[8]),
            16: pyramid[16],
            32: pyramid[32],
        }
        return features, fused

    def describe(
        self,
        own: dict[int, torch.Tensor],
        other: dict[int, torch.Tensor],
        other_masks: dict[int, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Describe one image conditioned on another.

        Args:
            own: features of the image to describe, by stride.
            other: features of the image to condition on; may have another H and W.
            other_masks: (B, P) bool by attention stride, false in padding; None = no padding.

        Returns:
            Unit descriptors (B, 64, H / 4, W / 4) and distinctiveness logits
            (B, 1, H / 4, W / 4).
        """
        attended = {
            s: self.attention[str(s)](own[s], other[s], other_masks[s] if other_masks else None)
            for s in ATTENTION_STRIDES
        }
        x = self.decode32(torch.cat([own[32], attended[32]], dim=1))
        x = self.decode16(torch.cat([own[16], attended[16], _double(x)], dim=1))
        x = self.decode8(self.lift8(_double(x)) + own[8])
        x = self.decode4(_double(self.lift4(x)) + own[4])
        descriptors = functional.normalize(self.descriptor_head(x), dim=1)
        # Not detached, unlike in the paper. A detached head stayed at chance (cross-entropy 0.68
        # after 1,500 steps), but its targets then came from a faulty loss: to be tried again.
        return descriptors, self.distinctiveness_head(x)


def _conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode='bilinear')
