"""Decoders of the network family: features of both images in, one conditioned map each out.

A decoder has `channels`, those of its map; `adapt(images, pyramid, local)`, the part that depends
on one image alone and whose result is what an image's features are; and `forward(view0, view1)`,
which conditions the images on each other and decodes both.

Shape legend: B pairs, C channels, H and W of the map at hand, P positions of a map (H * W).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from coam_ros.training.coattention import CoAttention
from coam_ros.training.encoders.normalization import grey_normalization
from coam_ros.training.network_config import ATTENTION_STRIDES, NetworkConfig
import torch
from torch import nn
from torch.nn import functional

DEEPEST_STRIDE = max(ATTENTION_STRIDES)
_NUM_OCTAVES = 3
# x and y, and a sine and a cosine of each at every octave.
POSITION_CHANNELS = 2 + 4 * _NUM_OCTAVES
# Length of the local descriptors among the other features, whose values are of this order.
_LOCAL_LENGTH = 4.0


class View(NamedTuple):
    """One image of a pair.

    Attributes:
        features: by stride, as `adapt` made them.
        size: (B, 2) float width and height without padding [px]; None = no padding.
    """

    features: dict[int, torch.Tensor]
    size: torch.Tensor | None

    def mask(self, stride: int) -> torch.Tensor | None:
        """Positions that are not padding, (B, P) bool; None where there is no padding."""
        if self.size is None:
            return None
        height, width = self.features[stride].shape[-2:]
        return cells_inside(height, width, stride, self.size).flatten(1)


class UNetDecoder(nn.Module):
    """The paper's decoder: double, concatenate the skip, two 3x3 convolutions; at each stride.

    Where the images attended to each other, the attended features stand behind the own ones.
    """

    def __init__(
        self, channels: dict[int, int], local_channels: int, config: NetworkConfig
    ) -> None:
        """Build down to the output stride.

        Args:
            channels: of the encoder, by stride; a stride without features has no skip.
            local_channels: of the encoder's local descriptors, which it does not read.
            config: of the network.

        Raises:
            ValueError: there are too few dims.
        """
        super().__init__()
        dims, output_stride = config.decoder_dims, config.output_stride
        num_blocks = int(math.log2(DEEPEST_STRIDE // output_stride))
        if len(dims) < num_blocks:
            raise ValueError(
                f'The U-Net decoder needs {num_blocks} decoder_dims down to output_stride '
                f'{output_stride}, got {list(dims)}; add some or choose a larger output_stride.'
            )
        self.attention = nn.ModuleDict(
            {
                str(stride): CoAttention(
                    channels[stride], dim, config.attention_scale, is_on=config.uses_coattention
                )
                for stride, dim in zip(ATTENTION_STRIDES, config.attention_dims, strict=True)
            }
        )
        joined = {s: c * (2 if s in ATTENTION_STRIDES else 1) for s, c in channels.items()}
        self.strides = [DEEPEST_STRIDE >> i for i in range(1, num_blocks + 1)]
        self.blocks = nn.ModuleList()
        in_channels = joined[DEEPEST_STRIDE]
        for stride, dim in zip(self.strides, dims, strict=False):
            self.blocks.append(UNetBlock(in_channels + joined.get(stride, 0), dim))
            in_channels = dim
        self.channels = in_channels

    def adapt(
        self,
        images: torch.Tensor,
        pyramid: dict[int, torch.Tensor],
        local: torch.Tensor | None,
    ) -> dict[int, torch.Tensor]:
        """Leave the encoder's features as they are, but drop those that no block reads."""
        return {s: x for s, x in pyramid.items() if s == DEEPEST_STRIDE or s in self.strides}

    def forward(self, view0: View, view1: View) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode to two maps (B, channels, H / output stride, W / output stride)."""
        return self._decode(view0, view1), self._decode(view1, view0)

    def _decode(self, own: View, other: View) -> torch.Tensor:
        joined = dict(own.features)
        for stride in ATTENTION_STRIDES:
            x, y = own.features[stride], other.features[stride]
            attended = self.attention[str(stride)](x, y, y, other.mask(stride))
            joined[stride] = torch.cat([x, attended], dim=1)
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
    """Coarse to fine co-attention, then a decoder to stride 4 whose skips are added.

    Three things differ from the paper, for accuracy at this size: the queries and keys at stride
    16 have already seen the other image at stride 32; what is attended carries its position, so
    that a descriptor can say where in the other image its point seems to lie; and the encoder's
    local descriptors, averaged, stand beside its features at strides 16 and 32. At stride 16 the
    images attend twice.
    """

    def __init__(
        self, channels: dict[int, int], local_channels: int, config: NetworkConfig
    ) -> None:
        """Build.

        Args:
            channels: of the encoder, by stride.
            local_channels: of the encoder's local descriptors; 0 where it has none.
            config: of the network.

        Raises:
            ValueError: the config's output stride or number of dims is not this decoder's.
        """
        super().__init__()
        if config.output_stride != 4 or len(config.decoder_dims) != 3:
            raise ValueError(
                'The light decoder ends at output_stride 4 and has 3 decoder_dims; got '
                f'{config.output_stride} and {list(config.decoder_dims)}. Change them, or choose '
                'decoder unet.'
            )
        coarse, skip, fine = config.decoder_dims
        value = {s: channels[s] + local_channels + POSITION_CHANNELS for s in ATTENTION_STRIDES}

        def attention(dim: int) -> CoAttention:
            return CoAttention(coarse, dim, config.attention_scale, is_on=config.uses_coattention)

        self.adapter8 = nn.Sequential(_conv(channels[8], coarse), nn.ReLU(), _conv(coarse, coarse))
        self.adapter4 = nn.Sequential(_conv(channels[4], skip), nn.ReLU(), _conv(skip, skip))
        self.pixels4 = _conv(16, skip)
        self.state32 = nn.Sequential(_conv(value[32], coarse), nn.ReLU())
        self.attention32 = attention(config.attention_dims[0])
        self.mix32 = nn.Sequential(_conv(coarse + value[32], coarse), nn.ReLU())
        self.state16 = nn.Sequential(_conv(value[16] + coarse, coarse), nn.ReLU())
        self.attention16 = attention(config.attention_dims[1])
        self.mix16 = nn.Sequential(_conv(coarse + value[16], coarse), nn.ReLU())
        self.second_attention16 = attention(config.attention_dims[1])
        self.second_mix16 = nn.Sequential(
            _conv(2 * coarse + value[16], coarse), nn.ReLU(), _conv(coarse, coarse), nn.ReLU()
        )
        self.lift8 = _conv(coarse, coarse)
        self.decode8 = nn.Sequential(nn.ReLU(), _conv(coarse, coarse), nn.ReLU())
        self.lift4 = nn.Conv2d(coarse, skip, 1)
        self.decode4 = nn.Sequential(
            nn.ReLU(), _conv(skip, fine), nn.ReLU(), _conv(fine, fine), nn.ReLU()
        )
        self.channels = fine

    def adapt(
        self,
        images: torch.Tensor,
        pyramid: dict[int, torch.Tensor],
        local: torch.Tensor | None,
    ) -> dict[int, torch.Tensor]:
        """Bring the skips to the decoder's channels, add averaged local descriptors below."""
        deep = {s: pyramid[s] for s in ATTENTION_STRIDES}
        if local is not None:
            local = functional.normalize(local, dim=1) * _LOCAL_LENGTH
            deep = {
                s: torch.cat([x, functional.avg_pool2d(local, s // 8)], dim=1)
                for s, x in deep.items()
            }
        # The pixels of a cell themselves: what is needed to say where in the cell something lies.
        pixels = self.pixels4(functional.pixel_unshuffle(grey_normalization(images), 4))
        return {
            4: self.adapter4(pyramid[4]) + pixels,
            8: self.adapter8(pyramid[8]),
            **deep,
        }

    def forward(self, view0: View, view1: View) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode to two maps (B, channels, H / 4, W / 4)."""
        views = (view0, view1)
        values32, values16 = (
            [torch.cat([v.features[s], position_code(v, s)], dim=1) for v in views]
            for s in ATTENTION_STRIDES
        )
        states = [self.state32(x) for x in values32]
        attended = _attend(self.attention32, states, values32, [v.mask(32) for v in views])
        mixed = [
            self.mix32(torch.cat(parts, dim=1)) for parts in zip(states, attended, strict=True)
        ]

        masks = [v.mask(16) for v in views]
        states = [
            self.state16(torch.cat([value, _double(x)], dim=1))
            for value, x in zip(values16, mixed, strict=True)
        ]
        attended = _attend(self.attention16, states, values16, masks)
        mixed = [
            self.mix16(torch.cat(parts, dim=1)) for parts in zip(states, attended, strict=True)
        ]
        attended = _attend(self.second_attention16, mixed, values16, masks)
        mixed = [
            self.second_mix16(torch.cat(parts, dim=1))
            for parts in zip(states, mixed, attended, strict=True)
        ]
        map0, map1 = (self._ascend(x, v.features) for x, v in zip(mixed, views, strict=True))
        return map0, map1

    def _ascend(self, x: torch.Tensor, features: dict[int, torch.Tensor]) -> torch.Tensor:
        x = self.decode8(self.lift8(_double(x)) + features[8])
        return self.decode4(_double(self.lift4(x)) + features[4])


DECODERS = {'light': LightDecoder, 'unet': UNetDecoder}


def cells_inside(height: int, width: int, stride: int, size: torch.Tensor) -> torch.Tensor:
    """Tell the cells of a map whose centre is not padding.

    Args:
        height: of the map [cells].
        width: of the map [cells].
        stride: of the map [px].
        size: (B, 2) float width and height without padding [px].

    Returns:
        (B, height, width) bool.
    """
    columns, rows = _centres(height, width, stride, size)
    return (rows[None] < size[:, 1:])[:, :, None] & (columns[None] < size[:, :1])[:, None, :]


def position_code(view: View, stride: int) -> torch.Tensor:
    """Say where in the image each cell lies: (B, POSITION_CHANNELS, H, W).

    Coordinates of -1 to 1 over the image without padding, and their sines and cosines.
    """
    features = view.features[stride]
    height, width = features.shape[-2:]
    size = view.size
    if size is None:
        size = torch.tensor([[width * stride, height * stride]], device=features.device).float()
        size = size.expand(features.shape[0], -1)
    columns, rows = (centres + 0.5 for centres in _centres(height, width, stride, size))
    x = (columns[None] / size[:, :1] * 2 - 1)[:, None, :].expand(-1, height, -1)
    y = (rows[None] / size[:, 1:] * 2 - 1)[:, :, None].expand(-1, -1, width)
    position = torch.stack([x, y], dim=1)
    code = [position]
    for octave in range(_NUM_OCTAVES):
        angle = position * (math.pi / 2 * 2**octave)
        code += [angle.sin(), angle.cos()]
    return torch.cat(code, dim=1).to(features.dtype)


def _centres(
    height: int, width: int, stride: int, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel coordinates of the centres of columns (W,) and rows (H,)."""
    centre = (stride - 1) / 2
    columns = torch.arange(width, device=like.device) * stride + centre
    rows = torch.arange(height, device=like.device) * stride + centre
    return columns, rows


def _attend(
    attention: CoAttention,
    states: list[torch.Tensor],
    values: list[torch.Tensor],
    masks: list[torch.Tensor | None],
) -> list[torch.Tensor]:
    """Let both images attend to each other."""
    return [
        attention(states[own], states[1 - own], values[1 - own], masks[1 - own]) for own in (0, 1)
    ]


def _conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _double(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode='bilinear')
