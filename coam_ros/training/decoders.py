"""Decoders of the network family: features of one image and attended ones in, one map out.

A decoder has `channels`, those of its map; `adapt(pyramid)`, the part that depends on one image
alone and whose result is what an image's features are; and `forward(own, attended)`, the part
that runs once a pair and direction. `channels` by stride in, `dims` are its own widths.

Shape legend: B pairs, C channels, H and W of the map at hand.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

DEEPEST_STRIDE = 32


class UNetDecoder(nn.Module):
    """The paper's decoder: double, concatenate the skip, two 3x3 convolutions; at each stride.

    Where the images attended to each other, the attended features stand behind the own ones.
    """

    def __init__(
        self,
        channels: dict[int, int],
        attention_strides: tuple[int, ...],
        dims: tuple[int, ...],
        output_stride: int,
    ) -> None:
        """Build down to a stride.

        Args:
            channels: of the encoder, by stride; a stride without features has no skip.
            attention_strides: where the channels are doubled by attended ones.
            dims: channels at strides 16, 8, 4, 2, 1; those beyond the output stride are not used.
            output_stride: 1, 2 or 4.

        Raises:
            ValueError: there are too few dims.
        """
        super().__init__()
        num_blocks = int(math.log2(DEEPEST_STRIDE // output_stride))
        if len(dims) < num_blocks:
            raise ValueError(
                f'The U-Net decoder needs {num_blocks} decoder_dims down to output_stride '
                f'{output_stride}, got {list(dims)}; add some or choose a larger output_stride.'
            )
        joined = {s: c * (2 if s in attention_strides else 1) for s, c in channels.items()}
        self.strides = [DEEPEST_STRIDE >> i for i in range(1, num_blocks + 1)]
        self.blocks = nn.ModuleList()
        in_channels = joined[DEEPEST_STRIDE]
        for stride, dim in zip(self.strides, dims, strict=False):
            self.blocks.append(UNetBlock(in_channels + joined.get(stride, 0), dim))
            in_channels = dim
        self.channels = in_channels

    def adapt(self, pyramid: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Leave the encoder's features as they are, but drop those that no block reads."""
        return {s: x for s, x in pyramid.items() if s == DEEPEST_STRIDE or s in self.strides}

    def forward(
        self, own: dict[int, torch.Tensor], attended: dict[int, torch.Tensor]
    ) -> torch.Tensor:
        """Decode to (B, channels, H / output stride, W / output stride)."""
        joined = {
            stride: torch.cat([x, attended[stride]], dim=1) if stride in attended else x
            for stride, x in own.items()
        }
        x = joined[DEEPEST_STRIDE]
        for stride, block in zip(self.strides, self.blocks, strict=True):
            x = block(x, joined.get(stride))
        return x


class UNetBlock(nn.Module):
    """Nearest doubling, skip, two times 3x3 convolution, batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Build; `in_channels` counts those of the skip."""
        super().__init__()
        self.conv1 = nn.Sequential(*_conv(in_channels, out_channels), nn.ReLU())
        self.conv2 = nn.Sequential(*_conv(out_channels, out_channels), nn.ReLU())

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """Map (B, C, H, W) and the skip (B, C', 2 H, 2 W) to (B, out, 2 H, 2 W)."""
        x = functional.interpolate(x, scale_factor=2.0, mode='nearest')
        return self.conv2(self.conv1(x if skip is None else torch.cat([x, skip], dim=1)))


class LightDecoder(nn.Module):
    """A decoder to stride 4 whose skips are added, after an adaptation once an image."""

    def __init__(
        self,
        channels: dict[int, int],
        attention_strides: tuple[int, ...],
        dims: tuple[int, ...],
        output_stride: int,
    ) -> None:
        """Build.

        Args:
            channels: of the encoder, by stride.
            attention_strides: strides 32 and 16, where the channels are doubled.
            dims: channels at strides 32 to 8; of the adapted skip at stride 4; of the map.
            output_stride: 4.

        Raises:
            ValueError: it is another output stride or number of dims.
        """
        super().__init__()
        if output_stride != 4 or len(dims) != 3 or set(attention_strides) != {32, 16}:
            raise ValueError(
                'The light decoder ends at output_stride 4, has 3 decoder_dims and attends at '
                f'strides 32 and 16; got {output_stride}, {list(dims)}, {attention_strides}. '
                'Change them, or choose decoder unet.'
            )
        coarse, skip, fine = dims
        self.adapter8 = nn.Sequential(_conv(channels[8], coarse), nn.ReLU(), _conv(coarse, coarse))
        self.adapter4 = nn.Sequential(_conv(channels[4], skip), nn.ReLU(), _conv(skip, skip))
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
        self.channels = fine

    def adapt(self, pyramid: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Bring the skips to the decoder's channels."""
        return {
            4: self.adapter4(pyramid[4]),
            8: self.adapter8(pyramid[8]),
            16: pyramid[16],
            32: pyramid[32],
        }

    def forward(
        self, own: dict[int, torch.Tensor], attended: dict[int, torch.Tensor]
    ) -> torch.Tensor:
        """Decode to (B, channels, H / 4, W / 4)."""
        x = self.decode32(torch.cat([own[32], attended[32]], dim=1))
        x = self.decode16(torch.cat([own[16], attended[16], _double(x)], dim=1))
        x = self.decode8(self.lift8(_double(x)) + own[8])
        return self.decode4(_double(self.lift4(x)) + own[4])


DECODERS = {'light': LightDecoder, 'unet': UNetDecoder}


def _conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode='bilinear')
