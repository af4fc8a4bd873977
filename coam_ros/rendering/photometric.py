"""What a real camera adds to an ideal picture; every function leaves the geometry alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


def adjust_exposure(
    image: NDArray[np.uint8], gains: Sequence[float] = (1.0, 1.0, 1.0), gamma: float = 1.0
) -> NDArray[np.uint8]:
    """Apply a gain a channel (exposure and colour cast) after a gamma curve.

    Args:
        image: (H, W, 3) uint8 RGB.
        gains: of red, green, blue.
        gamma: exponent on values in [0, 1]; over 1 darkens the middle.

    Returns:
        (H, W, 3) uint8; values over 255 saturate.
    """
    levels = np.linspace(0.0, 1.0, 256)[:, None] ** gamma * np.asarray(gains) * 255.0
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8).reshape(1, 256, 3)
    return cv2.LUT(image, table)


def vignette(image: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Darken towards the corners, which keep 1 - strength of their brightness.

    Args:
        image: (H, W, 3) uint8.
        strength: in [0, 1].

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    x, y = (np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in (width, height))
    factor = 1.0 - np.float32(strength) * (x[None] ** 2 + y[:, None] ** 2) / 2
    return np.rint(image * factor[..., None]).astype(np.uint8)


def motion_blur(
    image: NDArray[np.uint8], length_px: float, direction_rad: float = 0.0
) -> NDArray[np.uint8]:
    """Smear along a straight line centred on every pixel.

    Args:
        image: (H, W, 3) uint8.
        length_px: of the line; below 0.5 nothing happens.
        direction_rad: 0 is along x.

    Returns:
        (H, W, 3) uint8.
    """
    if length_px < 0.5:
        return image
    radius = int(np.ceil(length_px / 2)) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    # Bilinear weights of points spread evenly along the line: symmetric, so nothing shifts.
    for step in np.linspace(-length_px / 2, length_px / 2, 8 * radius + 1):
        x, y = radius + step * np.cos(direction_rad), radius + step * np.sin(direction_rad)
        column, row = int(x), int(y)
        fx, fy = x - column, y - row
        kernel[row : row + 2, column : column + 2] += np.outer((1 - fy, fy), (1 - fx, fx))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def defocus_blur(image: NDArray[np.uint8], sigma_px: float) -> NDArray[np.uint8]:
    """Blur as a lens out of focus, by a Gaussian; below 0.1 px nothing happens."""
    if sigma_px < 0.1:
        return image
    return cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)


def sensor_noise(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    read_std: float,
    shot_std: float,
) -> NDArray[np.uint8]:
    """Add noise whose variance grows with brightness.

    Args:
        image: (H, W, 3) uint8.
        rng: source of randomness.
        read_std: standard deviation in the dark [grey levels].
        shot_std: additional standard deviation at full brightness [grey levels].

    Returns:
        (H, W, 3) uint8.
    """
    variance = np.float32(read_std**2) + image * np.float32(shot_std**2 / 255.0)
    noise = rng.standard_normal(image.shape, np.float32) * np.sqrt(variance)
    return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class CameraEffects:
    """All effects of one picture, in the order in which light meets them.

    Attributes:
        motion_length_px: see `motion_blur`.
        motion_direction_rad: see `motion_blur`.
        defocus_sigma_px: see `defocus_blur`.
        vignette_strength: see `vignette`.
        gains: see `adjust_exposure`.
        gamma: see `adjust_exposure`.
        read_std: see `sensor_noise`; 0 together with `shot_std` adds no noise.
        shot_std: see `sensor_noise`.
        jpeg_quality: of the file that keeps the picture, in [1, 100]; `apply` writes none.
    """

    motion_length_px: float = 0.0
    motion_direction_rad: float = 0.0
    defocus_sigma_px: float = 0.0
    vignette_strength: float = 0.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    read_std: float = 0.0
    shot_std: float = 0.0
    jpeg_quality: int = 100

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> CameraEffects:
        """Draw effects; strength 0 draws none, 1 those of a cheap camera on a moving robot."""
        exposure = np.exp(rng.uniform(-0.35, 0.2) * strength)
        red, green, blue = exposure * np.exp(rng.uniform(-0.12, 0.12, 3) * strength)
        return cls(
            motion_length_px=float(rng.uniform(0.0, 5.0) * strength),
            motion_direction_rad=float(rng.normal(0.0, 0.4)),
            defocus_sigma_px=float(rng.uniform(0.0, 1.1) * strength),
            vignette_strength=float(rng.uniform(0.0, 0.45) * strength),
            gains=(float(red), float(green), float(blue)),
            gamma=float(np.exp(rng.uniform(-0.25, 0.25) * strength)),
            read_std=float(rng.uniform(0.5, 3.0) * strength),
            shot_std=float(rng.uniform(0.5, 5.0) * strength),
            jpeg_quality=int(100 - rng.uniform(5, 40) * strength),
        )

    def apply(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Apply all effects but the compression.

        Args:
            image: (H, W, 3) uint8 RGB.
            rng: source of the noise.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        image = defocus_blur(image, self.defocus_sigma_px)
        image = motion_blur(image, self.motion_length_px, self.motion_direction_rad)
        if self.vignette_strength > 0.0:
            image = vignette(image, self.vignette_strength)
        if self.gains != (1.0, 1.0, 1.0) or self.gamma != 1.0:
            image = adjust_exposure(image, self.gains, self.gamma)
        if self.read_std > 0.0 or self.shot_std > 0.0:
            image = sensor_noise(image, rng, self.read_std, self.shot_std)
        return image
