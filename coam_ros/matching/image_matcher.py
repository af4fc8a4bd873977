"""What retrieval and localization ask of a matcher: ours, and those it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from coam_ros.matching.correspondences import Correspondences
import numpy as np
from numpy.typing import NDArray


class Encoded(Protocol):
    """An image as a matcher remembers it."""

    @property
    def global_descriptor(self) -> NDArray[np.float32]:
        """(D,) float32 of unit norm, for retrieval."""

    @property
    def num_bytes(self) -> int:
        """Memory that it takes [bytes]."""


class ImageMatcher(Protocol):
    """Encodes images once and matches them often; each matcher takes what it encoded itself."""

    @property
    def descriptor_model_id(self) -> str:
        """Identity of the model of the global descriptors."""

    def encode(self, image: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - an Encoded of its own
        """Encode an image, (H, W, 3) RGB or (H, W) grey."""

    def match_encoded(
        self,
        query: Any,  # noqa: ANN401
        keyframes: Sequence[Any],
    ) -> list[Correspondences]:
        """Match a query with keyframes, in pixels of their images."""
