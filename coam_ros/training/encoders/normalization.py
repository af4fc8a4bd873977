"""What the encoders do to the pixels before all else."""

from __future__ import annotations

import torch
from torch.nn import functional


def paper_normalization(images: torch.Tensor) -> torch.Tensor:
    """Map RGB 0..255 to -1..1: mean 0.5 and deviation 0.5 of values in [0, 1], as in the paper."""
    return images / 127.5 - 1


def grey_normalization(images: torch.Tensor) -> torch.Tensor:
    """Map (B, 3, H, W) RGB to (B, 1, H, W) grey of zero mean and unit variance, as XFeat does."""
    return functional.instance_norm(images.mean(dim=1, keepdim=True), eps=1e-5)
