"""The CoAM network family: encoder, co-attention at strides 32 and 16, decoder, heads.

Wiles et al., "Co-Attention for Conditioned Image Matching", CVPR 2021, and a light form of it,
chosen by one config.

Shape legend: B pairs, C channels, D descriptor channels, H and W of the map at hand, P positions
of a map (H * W), s the network's output stride.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from coam_ros.training.decoders import DECODERS
from coam_ros.training.encoders import ENCODERS, load_pretrained, make_encoder
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
    """Which network of the family; the default is the light one.

    Attributes:
        encoder: xfeat, resnet50 or efficientnet_b1.
        encoder_weights: file with the encoder's published weights (torchvision's or
            efficientnet-pytorch's state dict); None takes those of the installed package, which
            only xfeat has. Read when a training starts anew, not when a checkpoint is loaded.
        attention_dims: channels of the co-attention's queries and keys at strides 32 and 16.
        attention_scale: factor of the dot products before the softmax; None is
            1 / sqrt(channels), which keeps them inside fp16; the paper has 1.
        uses_coattention: false puts zeros in the place of what was attended, to measure what
            conditioning earns.
        decoder: light or unet, the paper's.
        decoder_dims: channels of the decoder; for light those at strides 32 to 8, of the skip at
            stride 4, and of its map; for unet those at strides 16, 8, 4, 2 and 1.
        output_stride: of the descriptor map: 1 in the paper; light has 4; unet has 1, 2 or 4.
        descriptor_dim: channels of the descriptors.
        descriptor_kernel: side of the convolution that makes the descriptors [cells], odd.
        distinctiveness: mlp, on the decoder's map; or linear, the paper's, on the descriptors
            before their normalisation, which it does not train.
        has_visibility_head: whether a second head of that form says if a point is seen in the
            other image (`binary_class` in the paper's code).
    """

    encoder: str = 'xfeat'
    encoder_weights: str | None = None
    attention_dims: tuple[int, int] = (64, 64)
    attention_scale: float | None = None
    uses_coattention: bool = True
    decoder: str = 'light'
    decoder_dims: tuple[int, ...] = (96, 48, 64)
    output_stride: int = DESCRIPTOR_STRIDE
    descriptor_dim: int = DESCRIPTOR_DIM
    descriptor_kernel: int = 1
    distinctiveness: str = 'mlp'
    has_visibility_head: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without building.

        Raises:
            ValueError: a value is none of those that exist.
        """
        _check_choice('encoder', self.encoder, ENCODERS)
        _check_choice('decoder', self.decoder, DECODERS)
        _check_choice('distinctiveness', self.distinctiveness, _HEADS)
        _check_choice('output_stride', self.output_stride, (1, 2, 4))
        if len(self.attention_dims) != len(ATTENTION_STRIDES):
            raise ValueError(
                f'network.attention_dims has {len(self.attention_dims)} entries, wanted one for '
                f'each of the strides {ATTENTION_STRIDES}.'
            )


class DescribedImage(NamedTuple):
    """What the network says of one image, conditioned on another.

    Attributes:
        descriptors: (B, D, H / s, W / s), unit length.
        distinctiveness_logits: (B, 1, H / s, W / s).
        visibility_logits: of the same shape, that a point is seen in the other image; None where
            the network has no such head.
        raw_descriptors: the descriptors before their normalisation.
    """

    descriptors: torch.Tensor
    distinctiveness_logits: torch.Tensor
    visibility_logits: torch.Tensor | None
    raw_descriptors: torch.Tensor


class CoAttention(nn.Module):
    """What the other image shows where it looks like a position of this one.

    Wiles et al., CVPR 2021, eq. 1-2: softmax over the positions of the other image, raw features
    of the other image attended.
    """

    def __init__(self, channels: int, attention_dim: int, scale: float | None) -> None:
        """Build the two projections; the same pair serves both directions."""
        super().__init__()
        self.query = nn.Conv2d(channels, attention_dim, 1)
        self.key = nn.Conv2d(channels, attention_dim, 1)
        self.scale = scale

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
        # Dot products without a scale overflow fp16, and bf16 rounds them by whole units.
        with torch.autocast(own.device.type, enabled=False):
            own, other = own.float(), other.float()
            query, key, value = (
                x.flatten(2).transpose(1, 2)[:, None]
                for x in (self.query(own), self.key(other), other)
            )
            mask = None if other_mask is None else other_mask[:, None, None, :]
            attended = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=self.scale
            )
        return attended[:, 0].transpose(1, 2).reshape(own.shape)


class MlpHead(nn.Sequential):
    """Logits from the decoder's map, with a hidden layer."""

    def __init__(self, map_channels: int, descriptor_dim: int) -> None:
        """Build on the decoder's map."""
        hidden = map_channels // 2
        super().__init__(nn.Conv2d(map_channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))

    def forward(self, decoded: torch.Tensor, raw_descriptors: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, H, W) logits."""
        # Not detached, unlike in the paper. A detached head stayed at chance (cross-entropy 0.68
        # after 1,500 steps), but its targets then came from a faulty loss: to be tried again.
        return super().forward(decoded)


class LinearHead(nn.Sequential):
    """The paper's logits: three convolutions and normalisations, nothing between.

    They read the descriptors before their normalisation and do not train them.
    """

    def __init__(self, map_channels: int, descriptor_dim: int) -> None:
        """Build on the descriptors."""
        layers = []
        for in_channels in (descriptor_dim, 1, 1):
            layers += [nn.Conv2d(in_channels, 1, 1, bias=False), nn.BatchNorm2d(1)]
        super().__init__(*layers)

    def forward(self, decoded: torch.Tensor, raw_descriptors: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, H, W) logits."""
        return super().forward(raw_descriptors.detach())


_HEADS = {'linear': LinearHead, 'mlp': MlpHead}


class CoamNetwork(nn.Module):
    """Conditioned descriptors and distinctiveness of image pairs.

    `encode` sees one image alone and is all that can be cached; `describe` conditions the
    features of one image on those of another. Everything that does not depend on the other
    image is done in `encode`, because it runs once an image and `describe` twice a pair.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Build with random weights and a frozen encoder; `requires_grad_` thaws it.

        Raises:
            ValueError: the parts that the config names do not fit each other.
        """
        super().__init__()
        self.config = config
        self.output_stride = config.output_stride
        self.encoder = make_encoder(config.encoder).requires_grad_(requires_grad=False)
        channels = self.encoder.channels
        self.attention = nn.ModuleDict(
            {
                str(stride): CoAttention(channels[stride], dim, config.attention_scale)
                for stride, dim in zip(ATTENTION_STRIDES, config.attention_dims, strict=True)
            }
        ).requires_grad_(config.uses_coattention)
        self.decoder = DECODERS[config.decoder](
            channels, ATTENTION_STRIDES, config.decoder_dims, config.output_stride
        )
        decoded, dim = self.decoder.channels, config.descriptor_dim
        kernel = config.descriptor_kernel
        self.descriptor_head = nn.Conv2d(decoded, dim, kernel, padding=kernel // 2)
        make_head = _HEADS[config.distinctiveness]
        self.distinctiveness_head = make_head(decoded, dim)
        self.visibility_head = make_head(decoded, dim) if config.has_visibility_head else None

    def load_pretrained_encoder(self) -> None:
        """Give the encoder the published weights that the config names; see `load_pretrained`."""
        path = self.config.encoder_weights
        load_pretrained(self.encoder, None if path is None else Path(path))

    def train(self, mode: bool = True) -> CoamNetwork:
        """Switch training mode; the encoder keeps its statistics, frozen or not."""
        super().train(mode)
        self.encoder.eval()
        return self

    def encode(self, images: torch.Tensor) -> tuple[dict[int, torch.Tensor], torch.Tensor | None]:
        """Compute what depends on one image alone.

        Args:
            images: (B, 3, H, W) float RGB, 0 to 255; H and W multiples of 32.

        Returns:
            Features by stride, of the decoder's choice, and the encoder's local features at
            stride 8 for the global descriptor; None where it has no such.
        """
        pyramid, local = self.encoder(images)
        return self.decoder.adapt(pyramid), local

    def describe(
        self,
        own: dict[int, torch.Tensor],
        other: dict[int, torch.Tensor],
        other_masks: dict[int, torch.Tensor] | None = None,
    ) -> DescribedImage:
        """Describe one image conditioned on another.

        Args:
            own: features of the image to describe, by stride.
            other: features of the image to condition on; may have another H and W.
            other_masks: (B, P) bool by attention stride, false in padding; None = no padding.
        """
        attended = {
            s: self._attend(s, own[s], other[s], other_masks[s] if other_masks else None)
            for s in ATTENTION_STRIDES
        }
        decoded = self.decoder(own, attended)
        raw = self.descriptor_head(decoded)
        visibility = self.visibility_head
        return DescribedImage(
            descriptors=functional.normalize(raw, dim=1),
            distinctiveness_logits=self.distinctiveness_head(decoded, raw),
            visibility_logits=None if visibility is None else visibility(decoded, raw),
            raw_descriptors=raw,
        )

    def _attend(
        self, stride: int, own: torch.Tensor, other: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        if not self.config.uses_coattention:
            return torch.zeros_like(own)
        return self.attention[str(stride)](own, other, mask)


def _check_choice(field: str, value: object, choices: Collection) -> None:
    if value not in choices:
        raise ValueError(
            f'network.{field} is {value!r}, wanted one of {", ".join(map(str, sorted(choices)))}.'
        )
