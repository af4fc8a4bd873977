"""Encoders of the network family: one image in, features by stride out.

An encoder has `channels` by stride and `local_channels`; `forward(images)`, which takes
(B, 3, H, W) float RGB of 0 to 255 and returns the features by stride and, where it has such
(`local_channels` is not 0), local features at stride 8, else None; `rename(published)`, which
picks its entries out of a published state dict; and `default_weights()`, an installed file with
such a state dict or None.
"""

from __future__ import annotations

from pathlib import Path

from coam_ros.training.encoders.efficientnet import EfficientNetB1Encoder
from coam_ros.training.encoders.resnet import ResNet50Encoder
from coam_ros.training.encoders.xfeat import XFeatEncoder
from coam_ros.training.weights import as_state_dict, load_strictly, read_torch_file
from torch import nn

# By the name that a config gives; they start with random weights.
ENCODERS = {
    'efficientnet_b1': EfficientNetB1Encoder,
    'resnet50': ResNet50Encoder,
    'xfeat': XFeatEncoder,
}


def load_pretrained(encoder: nn.Module, path: Path | None) -> None:
    """Fill an encoder with published weights.

    Args:
        encoder: one of `ENCODERS`.
        path: file with a state dict, named as the encoder's publisher names it: torchvision for
            ResNet-50, efficientnet-pytorch for EfficientNet-B1. None takes what the encoder has
            by default.

    Raises:
        ModuleNotFoundError: the weights come with a package that is not installed.
        OSError: the file cannot be opened.
        ValueError: the file holds no such weights, or none was named where one is needed.
    """
    path = path or encoder.default_weights()
    if path is None:
        raise ValueError(
            f'{type(encoder).__name__} has no pretrained weights: network.encoder_weights is not '
            'set and no package ships them. Set it to a file with its ImageNet weights, or start '
            'from a checkpoint.'
        )
    published = as_state_dict(read_torch_file(path), path)
    load_strictly(encoder, encoder.rename(published), source=path)
