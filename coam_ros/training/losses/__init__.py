"""The losses that train the network, each with its constants; chosen by the constants' type."""

from __future__ import annotations

from typing import Protocol

from coam_ros.training.losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss
from coam_ros.training.losses.paper import PaperLoss, PaperLossConfig
from coam_ros.training.losses.self_supervised import SelfSupervisedConfig, SelfSupervisedLoss
from coam_ros.training.network import DescribedImage
import torch
from torch import nn

LossConfig = CrossEntropyConfig | PaperLossConfig | SelfSupervisedConfig
# By the name that a config file gives as `loss.kind`.
LOSS_CONFIGS: dict[str, type[LossConfig]] = {
    'cross_entropy': CrossEntropyConfig,
    'paper': PaperLossConfig,
    'self_supervised': SelfSupervisedConfig,
}
_LOSSES = {
    CrossEntropyConfig: CrossEntropyLoss,
    PaperLossConfig: PaperLoss,
    SelfSupervisedConfig: SelfSupervisedLoss,
}


class Loss(Protocol):
    """What a training minimises."""

    def __call__(
        self,
        described0: DescribedImage,
        described1: DescribedImage,
        batch: dict[str, torch.Tensor],
        output_stride: int,
        refiner: nn.Module | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss of a batch of pairs.

        What is drawn at random comes from PyTorch's generator of the maps' device. Call it
        outside of autocast: sixteen bits are too few for sums over a map.

        Args:
            described0: the first images, conditioned on the second ones; float32.
            described1: the second images, conditioned on the first ones; float32.
            batch: tensors of the pairs; which, says the loss.
            output_stride: of the described maps [px].
            refiner: of the network, where it learns; a loss on descriptors alone leaves it be.

        Returns:
            Scalar loss, and figures for the log: 0-d tensors without a graph. A batch in which
            nothing is known gives 0, with a graph.
        """


def make_loss(config: LossConfig) -> Loss:
    """Build the loss that has these constants."""
    return _LOSSES[type(config)](config)
