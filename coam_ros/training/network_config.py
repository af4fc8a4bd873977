"""Which network of the family: what a config file says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coam_ros.training.config_file import check_least

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
        distinctiveness_exponent: the distinctiveness is the sigmoid of that head's logits to this
            power. The paper trains the sigmoid itself to be 1 / m^tau, where m points could be
            confused, which is 1 here; our losses train it as the probability of a right match,
            whose share among m alike is 1 / m, so this is their tau. It changes the order of
            matches by similarity x distinctiveness, nothing else where there is a refiner;
            0.03 by docs/experiments.md.
        has_visibility_head: whether a second head of that form says if a point is seen in the
            other image (`binary_class` in the paper's code).
        has_refiner: whether matches are refined on fine features and given a confidence, which
            the paper does not do; needs output_stride 4.
    """

    encoder: Literal['efficientnet_b1', 'resnet50', 'xfeat'] = 'xfeat'
    encoder_weights: str | None = None
    attention_dims: tuple[int, int] = (64, 64)
    attention_scale: float | None = None
    uses_coattention: bool = True
    decoder: Literal['light', 'unet'] = 'light'
    decoder_dims: tuple[int, ...] = (96, 48, 64)
    output_stride: Literal[1, 2, 4] = 4
    descriptor_dim: int = 64
    descriptor_kernel: int = 1
    distinctiveness: Literal['linear', 'mlp'] = 'mlp'
    distinctiveness_exponent: float = 0.03
    has_visibility_head: bool = False
    has_refiner: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked without building; raises a ValueError that names the field."""
        if self.has_refiner and self.output_stride != 4:
            raise ValueError(
                f'network.has_refiner needs output_stride 4, got {self.output_stride}; change '
                'one of them.'
            )
        check_least('network', self, descriptor_dim=1, descriptor_kernel=1)
        if self.descriptor_kernel % 2 == 0:
            raise ValueError(
                f'network.descriptor_kernel is {self.descriptor_kernel}, wanted an odd number: '
                'an even one shifts the map; correct it.'
            )
        if not 0 < self.distinctiveness_exponent <= 1:
            raise ValueError(
                'network.distinctiveness_exponent wants more than 0 and at most 1, got '
                f'{self.distinctiveness_exponent}; the paper has 1.'
            )
