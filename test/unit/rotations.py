"""Rotations for tests."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray


def rotation_from_vector(vector: ArrayLike) -> NDArray[np.float64]:
    """Give the rotation (3, 3) by |vector| radians around a vector (3,)."""
    return cv2.Rodrigues(np.asarray(vector, np.float64))[0]
