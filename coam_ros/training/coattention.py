"""Co-attention: what the other image shows where it looks like a position of this one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

# Added to what a softmax must not see. Finite, for the export of a mask of booleans looks for
# the NaN of a row that sees nothing, which takes OpenVINO as long as the softmax itself.
_HIDDEN = -1e9


class CoAttention(nn.Module):
    """Softmax over the positions of the other image; Wiles et al., CVPR 2021, eq. 1-2."""

    def __init__(self, channels: int, dim: int, scale: float | None, *, is_on: bool) -> None:
        """Build the two projections; the same pair serves both directions.

        Args:
            channels: of the maps that are compared.
            dim: channels of queries and keys.
            scale: of the dot products; None is 1 / sqrt(dim).
            is_on: false answers zeros, to measure what conditioning earns.
        """
        super().__init__()
        self.query = nn.Conv2d(channels, dim, 1).requires_grad_(is_on)
        self.key = nn.Conv2d(channels, dim, 1).requires_grad_(is_on)
        self.scale = scale
        self.is_on = is_on

    def forward(
        self,
        own: torch.Tensor,
        other: torch.Tensor,
        value: torch.Tensor,
        other_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend.

        Args:
            own: (B, C, H, W) map of the image being described.
            other: (B, C, H', W') the same map of the image it is conditioned on.
            value: (B, V, H', W') what is fetched from there.
            other_mask: (B, H' * W') bool, false where the other image is padding; None = no
                padding.

        Returns:
            (B, V, H, W) attended values.
        """
        # Not len(own): an export would take it for a constant.
        shape = (own.shape[0], value.shape[1], *own.shape[-2:])
        if not self.is_on:
            return own.new_zeros(shape)
        # Dot products without a scale overflow fp16, and bf16 rounds them by whole units.
        with torch.autocast(own.device.type, enabled=False):
            query, key, value = (
                x.float().flatten(2).transpose(1, 2)[:, None]
                for x in (self.query(own.float()), self.key(other.float()), value)
            )
            mask = None
            if other_mask is not None:
                seen = torch.zeros_like(other_mask, dtype=query.dtype)
                mask = seen.masked_fill(~other_mask, _HIDDEN)[:, None, None, :]
            attended = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=self.scale
            )
        return attended[:, 0].transpose(1, 2).reshape(shape)
