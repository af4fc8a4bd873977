"""EfficientNet-B1 as an encoder: features of its five stages.

The architecture is that of Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional
Neural Networks", ICML 2019, as in efficientnet-pytorch 0.6.3, without stochastic depth: the
encoder is frozen. Layers are named as there, without the leading underscores.
"""

from __future__ import annotations

import re
from typing import ClassVar

from coam_ros.training.encoders.normalization import paper_normalization
import torch
from torch import nn
from torch.nn import functional

_STEM_CHANNELS = 32
# Stages: (blocks, kernel, stride of the first block, expansion, channels out); B1's depths.
_STAGES = (
    (2, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 40),
    (4, 3, 2, 6, 80),
    (4, 5, 1, 6, 112),
    (5, 5, 2, 6, 192),
    (2, 3, 1, 6, 320),
)
# Blocks after which the features of a stride are complete.
_LAST_BLOCKS = {4: 4, 7: 8, 15: 16, 22: 32}
# Entries of a published state dict that only its classifier needs.
_CLASSIFIER = ('_conv_head.', '_bn1.', '_fc.')


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SameConv(nn.Conv2d):
    """Convolution without bias whose 'same' padding is that of an even input.

    A stride of two pads one less before than after: kernel 3 by 0 and 1, kernel 5 by 1 and 2.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1
    ) -> None:
        """Fix the padding."""
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        before, after = (kernel - stride) // 2, kernel // 2
        self._margins = (before, after, before, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        return super().forward(functional.pad(x, self._margins))


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection, shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        """Build; an expansion of one has no expanding convolution."""
        super().__init__()
        channels = expansion * in_channels
        if expansion > 1:
            self.expand_conv = nn.Conv2d(in_channels, channels, 1, bias=False)
            self.bn0 = _batch_norm(channels)
        self.depthwise_conv = SameConv(channels, channels, kernel, stride, groups=channels)
        self.bn1 = _batch_norm(channels)
        self.se_reduce = nn.Conv2d(channels, in_channels // 4, 1)
        self.se_expand = nn.Conv2d(in_channels // 4, channels, 1)
        self.project_conv = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn2 = _batch_norm(out_channels)
        self._expands = expansion > 1
        self._has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        y = functional.silu(self.bn0(self.expand_conv(x))) if self._expands else x
        y = functional.silu(self.bn1(self.depthwise_conv(y)))
        squeezed = functional.silu(self.se_reduce(y.mean((2, 3), keepdim=True)))
        y = y * torch.sigmoid(self.se_expand(squeezed))
        y = self.bn2(self.project_conv(y))
        return x + y if self._has_shortcut else y


class EfficientNetB1Encoder(nn.Module):
    """EfficientNet-B1 without its classifier."""

    channels: ClassVar = {2: 32, 4: 24, 8: 40, 16: 112, 32: 320}
    local_channels: ClassVar = 0

    def __init__(self) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.conv_stem = SameConv(3, _STEM_CHANNELS, 3, stride=2)
        self.bn0 = _batch_norm(_STEM_CHANNELS)
        self.blocks = nn.ModuleList()
        in_channels = _STEM_CHANNELS
        for num_blocks, kernel, first_stride, expansion, channels in _STAGES:
            for block in range(num_blocks):
                stride = first_stride if block == 0 else 1
                self.blocks.append(
                    InvertedBottleneck(in_channels, channels, kernel, stride, expansion)
                )
                in_channels = channels

    def forward(self, images: torch.Tensor) -> tuple[dict[int, torch.Tensor], None]:
        """Compute the features.

        Args:
            images: (B, 3, H, W) float RGB, 0 to 255; H and W are multiples of 32.

        Returns:
            Features by stride 2 to 32, and None: no features for the global descriptor.
        """
        x = functional.silu(self.bn0(self.conv_stem(paper_normalization(images))))
        features = {2: x}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _LAST_BLOCKS:
                features[_LAST_BLOCKS[index]] = x
        return features, None

    @staticmethod
    def default_weights() -> None:
        """Return None: no installed package ships weights of this encoder."""

    @staticmethod
    def rename(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keep the encoder's entries of an efficientnet-pytorch state dict, under our names."""
        return {
            re.sub(r'(^|\.)_', r'\1', name): x
            for name, x in published.items()
            if not name.startswith(_CLASSIFIER)
        }
