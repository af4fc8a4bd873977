"""Global image descriptor for retrieval: aggregated local features, whitened.

VLAD (Jegou et al., CVPR 2010) with soft assignment (Arandjelovic et al., CVPR 2016) over the
encoder's local features at stride 8; vocabulary and whitening come from photos without labels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

NUM_CLUSTERS = 32
DIM = 256
# Sharpness of the soft assignment; chosen by judgement, not tuned or measured.
_SHARPNESS = 20.0


class GlobalDescriptor(nn.Module):
    """(B, C, H, W) local features to (B, DIM) unit descriptors."""

    def __init__(self, channels: int = 64) -> None:
        """Build with empty vocabulary; `fit` or a checkpoint fills it."""
        super().__init__()
        self.register_buffer('centres', torch.zeros(NUM_CLUSTERS, channels))
        self.register_buffer('mean', torch.zeros(NUM_CLUSTERS * channels))
        self.register_buffer('whitening', torch.zeros(DIM, NUM_CLUSTERS * channels))

    def forward(self, local: torch.Tensor) -> torch.Tensor:
        """Aggregate and whiten."""
        return functional.normalize((self._vlad(local) - self.mean) @ self.whitening.T, dim=1)

    def _vlad(self, local: torch.Tensor) -> torch.Tensor:
        x_BCP = functional.normalize(local, dim=1).flatten(2)
        assignment_BKP = functional.softmax(_SHARPNESS * (self.centres @ x_BCP), dim=1)
        total_BKC = assignment_BKP @ x_BCP.transpose(1, 2)
        residual = total_BKC - assignment_BKP.sum(2, keepdim=True) * self.centres
        residual = functional.normalize(residual, dim=2)
        return functional.normalize(residual.flatten(1), dim=1)

    @torch.no_grad()
    def fit(self, local_maps: list[torch.Tensor], seed: int = 0) -> None:
        """Learn vocabulary and whitening.

        Args:
            local_maps: local features (1, C, H, W) of at least 2 DIM images; more and more
                varied ones whiten better.
            seed: of the k-means.

        Raises:
            ValueError: too few images.
        """
        if len(local_maps) < 2 * DIM:
            raise ValueError(
                f'{len(local_maps)} photos for the global descriptor, wanted at least {2 * DIM}; '
                'give more, or none and take the descriptor of the default model.'
            )
        rng = np.random.default_rng(seed)
        samples = []
        for local in local_maps:
            x = functional.normalize(local, dim=1).flatten(2)[0].T
            samples.append(x[torch.from_numpy(rng.permutation(len(x))[:200])])
        self.centres.copy_(_spherical_kmeans(torch.cat(samples), NUM_CLUSTERS, rng))
        vlad = torch.cat([self._vlad(local) for local in local_maps])
        self.mean.copy_(vlad.mean(0))
        _, scale, basis = torch.linalg.svd(vlad - self.mean, full_matrices=False)
        # Damped whitening: full whitening would blow up the noise of the last components.
        variance = scale[:DIM] ** 2 / len(vlad)
        self.whitening.copy_(basis[:DIM] / (variance + variance.mean()).sqrt()[:, None])


def _spherical_kmeans(
    points: torch.Tensor, num_clusters: int, rng: np.random.Generator
) -> torch.Tensor:
    """Cluster unit vectors by cosine; returns unit centres."""
    centres = points[torch.from_numpy(rng.permutation(len(points))[:num_clusters])]
    for _ in range(25):
        nearest = (points @ centres.T).argmax(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = functional.normalize(total + 1e-6 * centres, dim=1)
    return centres
