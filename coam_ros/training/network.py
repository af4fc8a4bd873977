"""The CoAM network family: encoder, co-attention at strides 32 and 16, decoder, heads.

Wiles et al., "Co-Attention for Conditioned Image Matching", CVPR 2021, and a light form of it,
chosen by one config.

Shape legend: B pairs, C channels, D descriptor channels, H and W of the map at hand, s the
network's output stride.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from coam_ros.training.decoders import DECODERS, View
from coam_ros.training.encoders import ENCODERS, load_pretrained
from coam_ros.training.network_config import NetworkConfig
from coam_ros.training.refiner import MatchRefiner, PlainRefiner
import torch
from torch import nn
from torch.nn import functional


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


class MlpHead(nn.Sequential):
    """Logits from the decoder's map, with a hidden layer."""

    def __init__(self, map_channels: int, descriptor_dim: int) -> None:
        """Build on the decoder's map."""
        hidden = map_channels // 2
        super().__init__(nn.Conv2d(map_channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))

    def forward(self, decoded: torch.Tensor, raw_descriptors: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, H, W) logits."""
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

    `encode` sees one image alone and is all that can be cached; `describe_pair` conditions two
    images on each other. Everything that does not depend on the other image is done in `encode`,
    because it runs once an image and not once a pair.

    Attributes:
        config: which network of the family.
        output_stride: of the described maps [px].
        refiner: says where exactly a match lies and how likely it is right.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Build with random weights and a frozen encoder; `requires_grad_` thaws it.

        Raises:
            ValueError: the parts that the config names do not fit each other.
        """
        super().__init__()
        self.config = config
        self.output_stride = config.output_stride
        self.encoder = ENCODERS[config.encoder]().requires_grad_(requires_grad=False)
        self.decoder = DECODERS[config.decoder](
            self.encoder.channels, self.encoder.local_channels, config
        )
        decoded, dim = self.decoder.channels, config.descriptor_dim
        kernel = config.descriptor_kernel
        self.descriptor_head = nn.Conv2d(decoded, dim, kernel, padding=kernel // 2)
        make_head = _HEADS[config.distinctiveness]
        self.distinctiveness_head = make_head(decoded, dim)
        self.visibility_head = make_head(decoded, dim) if config.has_visibility_head else None
        self.refiner = (
            MatchRefiner(dim)
            if config.has_refiner
            else PlainRefiner(config.distinctiveness_exponent)
        )

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
        return self.decoder.adapt(images, pyramid, local), local

    def describe_pair(self, view0: View, view1: View) -> tuple[DescribedImage, DescribedImage]:
        """Describe two images, each conditioned on the other.

        Args:
            view0: features of the first images, and their size.
            view1: of the second ones; may have another H and W.
        """
        map0, map1 = self.decoder(view0, view1)
        return self._read_out(map0), self._read_out(map1)

    def _read_out(self, decoded: torch.Tensor) -> DescribedImage:
        raw = self.descriptor_head(decoded)
        visibility = self.visibility_head
        return DescribedImage(
            descriptors=functional.normalize(raw, dim=1),
            distinctiveness_logits=self.distinctiveness_head(decoded, raw),
            visibility_logits=None if visibility is None else visibility(decoded, raw),
            raw_descriptors=raw,
        )
