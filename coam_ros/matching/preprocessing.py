"""Any image to the encoder's input, and pixels of the input back to pixels of the image."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Of the sides of an image: at 640 x 480 px of area longer strips pass the coordinates of OpenCV.
MAX_ASPECT = 1000


@dataclass(frozen=True)
class Resizing:
    """Resize an image to a given area, keeping its aspect, and pad right and bottom.

    Attributes:
        image_size: (width, height) of the image [px].
        resized_size: (width, height) after the resize, rounded to pixels.
        input_size: (width, height) of the encoder's input, multiples of the model's.
    """

    image_size: tuple[int, int]
    resized_size: tuple[int, int]
    input_size: tuple[int, int]

    @classmethod
    def fit(cls, image_size: tuple[int, int], area_px: int, multiple: int) -> Resizing:
        """Choose the sizes for an image: `area_px` before the padding, whatever its size.

        A very long image keeps at least `multiple` pixels on its short side and so gets more.
        """
        width, height = image_size
        scale = math.sqrt(area_px / (width * height))
        resized = tuple(max(multiple, round(side * scale)) for side in (width, height))
        padded = tuple(math.ceil(side / multiple) * multiple for side in resized)
        return cls(image_size, (resized[0], resized[1]), (padded[0], padded[1]))

    @classmethod
    def fit_inside(cls, image_size: tuple[int, int], input_size: tuple[int, int]) -> Resizing:
        """Make an image as large as goes into an input of a fixed size."""
        scale = min(inside / side for inside, side in zip(input_size, image_size, strict=True))
        width, height = (max(1, round(side * scale)) for side in image_size)
        return cls(image_size, (width, height), input_size)

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn (H, W, 3) uint8 into the encoder's input (H', W', 3) uint8."""
        shrinks = self.resized_size[0] < self.image_size[0]
        # INTER_AREA averages what a pixel of the smaller image covers, so nothing aliases.
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(image, self.resized_size, interpolation=interpolation)
        right = self.input_size[0] - self.resized_size[0]
        bottom = self.input_size[1] - self.resized_size[1]
        padded = cv2.copyMakeBorder(resized, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        return np.asarray(padded, np.uint8)

    def to_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take pixels (N, 2) of the encoder's input to pixels of the image."""
        scale = np.divide(self.image_size, self.resized_size)
        return ((points + 0.5) * scale - 0.5).astype(np.float32)


def is_strip(height: int, width: int) -> bool:
    """Tell an image that is too long for the encoder."""
    return max(height, width) > MAX_ASPECT * min(height, width)


def as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Check an image and return it as RGB.

    Args:
        image: (H, W, 3) RGB or (H, W) grey, uint8, at least 1 x 1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        TypeError: not an array of uint8.
        ValueError: another shape, no pixels, or a strip.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(
            f'Wrong image type: got {got}, wanted a uint8 array, RGB (H, W, 3) or grey (H, W); '
            'scale and convert it first.'
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    is_grey = image.ndim == 2
    if image.ndim >= 2 and 0 not in image.shape and is_strip(image.shape[0], image.shape[1]):
        raise ValueError(
            f'Image of {image.shape[1]} x {image.shape[0]} px, wanted sides of at most '
            f'{MAX_ASPECT} : 1; cut it.'
        )
    if not (is_grey or (image.ndim == 3 and image.shape[2] == 3)) or 0 in image.shape:
        raise ValueError(
            f'Wrong image shape: got {image.shape}, wanted (H, W, 3) RGB or (H, W) grey with at '
            'least one pixel; drop the alpha channel or decode the image first.'
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if is_grey else image, np.uint8)
