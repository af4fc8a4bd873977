"""Normalisation of the paper's encoders."""

from __future__ import annotations

import torch


def paper_normalization(images: torch.Tensor) -> torch.Tensor:
    """Map RGB 0..255 to -1..1: mean 0.5 and deviation 0.5 of values in [0, 1], as in the paper."""
    return images / 127.5 - 1
