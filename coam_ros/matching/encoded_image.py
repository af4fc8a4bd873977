"""What is remembered of an image after encoding: everything that can be cached."""

from __future__ import annotations

from dataclasses import dataclass

from coam_ros.inference.backend import Arrays
from coam_ros.matching.preprocessing import Resizing
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """Encoder features of one image, and what the alignment of matches reads of it.

    Attributes:
        features: arrays of the encoder by name.
        global_descriptor: (D,) float32 of unit norm, for retrieval.
        resizing: how the image became the encoder's input, and the way back.
        grey: (H, W) uint8, the resized image without padding.
    """

    features: Arrays
    global_descriptor: NDArray[np.float32]
    resizing: Resizing
    grey: NDArray[np.uint8]

    @property
    def num_bytes(self) -> int:
        """Memory that it takes [bytes]."""
        features = sum(array.nbytes for array in self.features.values())
        return features + self.global_descriptor.nbytes + self.grey.nbytes
