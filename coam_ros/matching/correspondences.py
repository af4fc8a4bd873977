"""Correspondences of two images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Points of two images that show the same place, best first.

    Attributes:
        points0: (N, 2) float32 pixels of image 0 as it was given.
        points1: (N, 2) float32 pixels of image 1 as it was given.
        scores: (N,) float32 in (0, 1]: how likely a match is right; of our own network the
            probability that it is right to 3 px of the image as it was matched.
        similarities: (N,) float32 cosine of the descriptors; None where a matcher has none.
        distinctiveness: (N,) float32 in [0, 1], product of both ends; None likewise.
    """

    points0: NDArray[np.float32]
    points1: NDArray[np.float32]
    scores: NDArray[np.float32]
    similarities: NDArray[np.float32] | None = None
    distinctiveness: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of correspondences."""
        return len(self.scores)
