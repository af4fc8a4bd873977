"""ResNet-50 as an encoder: features of its five stages.

The architecture is that of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
with the stride of a block in its 3x3 convolution. Layers are named as in torchvision.
"""

from __future__ import annotations

from typing import ClassVar

from coam_ros.training.encoders.normalization import paper_normalization
import torch
from torch import nn
from torch.nn import functional

# A block's output has four times the channels of its 3x3 convolution.
_EXPANSION = 4
# Blocks and channels of the 3x3 convolutions of the stages `layer1` to `layer4`.
_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))


class Bottleneck(nn.Module):
    """Residual block: 1x1, 3x3 and 1x1 convolution around a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        """Project the shortcut where the size or the channels change."""
        super().__init__()
        out_channels = _EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, H, W) to (B, 4 * channels, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50Encoder(nn.Module):
    """ResNet-50 without its classifier."""

    channels: ClassVar = {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048}
    local_channels: ClassVar = 0

    def __init__(self) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        in_channels = 64
        for index, (num_blocks, channels) in enumerate(_STAGES, start=1):
            blocks = []
            for block in range(num_blocks):
                stride = 2 if block == 0 and index > 1 else 1
                blocks.append(Bottleneck(in_channels, channels, stride))
                in_channels = _EXPANSION * channels
            self.add_module(f'layer{index}', nn.Sequential(*blocks))

    def forward(self, images: torch.Tensor) -> tuple[dict[int, torch.Tensor], None]:
        """Compute the features.

        Args:
            images: (B, 3, H, W) float RGB, 0 to 255; H and W are multiples of 32.

        Returns:
            Features by stride 2 to 32, and None: no features for the global descriptor.
        """
        x2 = functional.relu(self.bn1(self.conv1(paper_normalization(images))))
        x4 = self.layer1(functional.max_pool2d(x2, 3, 2, padding=1))
        x8 = self.layer2(x4)
        x16 = self.layer3(x8)
        x32 = self.layer4(x16)
        return {2: x2, 4: x4, 8: x8, 16: x16, 32: x32}, None

    @staticmethod
    def default_weights() -> None:
        """Return None: no installed package ships weights of this encoder."""

    @staticmethod
    def rename(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keep the encoder's entries of a torchvision state dict: all but the classifier."""
        return {name: x for name, x in published.items() if not name.startswith('fc.')}
