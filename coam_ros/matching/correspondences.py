"""Correspondences of two images."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

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
        is_aligned: (N,) bool, whether the images confirmed the match and refined it, see
            `alignment`; None where that was not tried.
    """

    points0: NDArray[np.float32]
    points1: NDArray[np.float32]
    scores: NDArray[np.float32]
    similarities: NDArray[np.float32] | None = None
    distinctiveness: NDArray[np.float32] | None = None
    is_aligned: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Return the number of correspondences."""
        return len(self.scores)

    @property
    def num_aligned(self) -> int:
        """Number of matches that the images confirmed."""
        return 0 if self.is_aligned is None else int(self.is_aligned.sum())

    def aligned(self) -> Correspondences:
        """Return those that the images confirmed."""
        none = np.zeros(len(self), bool)
        return self.select(none if self.is_aligned is None else self.is_aligned)

    def followed_by(self, others: Correspondences) -> Correspondences:
        """Return these and others that know the same of themselves, in this order."""
        return replace(
            self,
            **{
                name: np.concatenate([column, getattr(others, name)])
                for name, column in self._columns.items()
            },
        )

    def select(self, chosen: NDArray[np.bool_ | np.int_]) -> Correspondences:
        """Return those of a mask (N,), or of indices in their order."""
        return replace(self, **{name: x[chosen] for name, x in self._columns.items()})

    @property
    def _columns(self) -> dict[str, NDArray[Any]]:
        """What is known of the matches, by name of the attribute."""
        known = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: column for name, column in known if column is not None}
