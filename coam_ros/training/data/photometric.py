"""Photometric change of a training view: light, colour, blur, resolution, noise, compression."""

from __future__ import annotations

from statistics import NormalDist

from coam_ros.matching.image_files import decode_rgb, encode_jpeg
from coam_ros.rendering.photometric import defocus_blur, motion_blur
import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
# Light changes slowly: it is drawn at this fraction of the resolution.
_LIGHT_STEP = 4
# The normal distribution at the middles of 256 equal shares.
_NORMAL_OF_BYTE = np.array(
    [NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)], np.float32
)


def vary_photometry(image: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """Return the view as another camera in another light might have taken it.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: source of all randomness.
        strength: factor on the size of every change; 0 returns the image itself.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if strength == 0:
        return image
    if rng.random() < 0.4:
        image = _relight(image, rng, strength)
    image = _vary_colour(image, rng, strength)
    if rng.random() < 0.3:
        image = defocus_blur(image, strength * rng.uniform(0.4, 1.6))
    if rng.random() < 0.15:
        image = motion_blur(image, strength * rng.uniform(2, 9), rng.uniform(0, np.pi))
    if rng.random() < 0.1:
        image = _lose_resolution(image, rng.uniform(0.5, 1.0))
    if rng.random() < 0.4:
        image = _add_noise(image, strength * rng.uniform(0, 12), rng)
    if rng.random() < 0.25:
        image = decode_rgb(encode_jpeg(image, max(1, int(100 - strength * rng.uniform(10, 70)))))
    return image


def _vary_colour(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Change gamma, contrast, brightness, colour cast and saturation."""
    gamma = np.exp(rng.normal(0, 0.3 * strength))
    contrast = np.exp(rng.normal(0, 0.25 * strength))
    brightness = rng.normal(0, 0.08 * strength)
    gains = np.exp(rng.normal(0, 0.08 * strength, 3))
    saturation = 0.0 if rng.random() < 0.15 else np.exp(rng.normal(0, 0.25 * strength))
    # Contrast turns about the middle grey of the image, so that it leaves the brightness alone.
    pivot = (image[::_LIGHT_STEP, ::_LIGHT_STEP].mean() / 255) ** gamma
    levels = np.linspace(0, 1, 256)[:, None] ** gamma
    levels = ((levels - pivot) * contrast + pivot + brightness) * gains
    table = np.clip(np.rint(levels * 255), 0, 255).astype(np.uint8).reshape(1, 256, 3)
    mixing = saturation * np.eye(3) + (1 - saturation) / 3
    return cv2.transform(cv2.LUT(image, table), mixing)


def _relight(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Multiply by the light of a lamp from the side, a cast shadow or a patch of sun."""
    height, width = image.shape[:2]
    shape = (-(-height // _LIGHT_STEP), -(-width // _LIGHT_STEP))
    light = _side_light(shape, rng) if rng.random() < 0.6 else _cast_light(shape, rng)
    light = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR) ** strength
    return cv2.multiply(image, cv2.merge([light] * 3), dtype=cv2.CV_8U)


def _side_light(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth light: a gradient over the image or the edge of a large shadow."""
    height, width = shape
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    position = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    softness = np.exp(rng.uniform(np.log(0.02), np.log(1.0)))
    edge = 1 / (1 + np.exp(-(position - rng.uniform(-0.3, 0.3)) / softness))
    darkest = rng.uniform(0.35, 1.0)
    return (darkest + (1 - darkest) * edge).astype(np.float32)


def _cast_light(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Hard light: a few corners span a shadow, or a patch that the sun lights."""
    corners = rng.uniform(-0.1, 1.1, (int(rng.integers(3, 7)), 2)) * shape[::-1]
    hull = cv2.convexHull(corners.astype(np.int32))
    light = cv2.fillConvexPoly(np.ones(shape, np.float32), hull, float(rng.uniform(0.35, 1.5)))
    return cv2.GaussianBlur(light, (0, 0), rng.uniform(0.5, 4.0))


def _add_noise(image: Image, level: float, rng: np.random.Generator) -> Image:
    """Add sensor noise whose variance grows with brightness, to `level` grey levels at white.

    Normal numbers from bytes: a fifth of the time of `rendering.photometric.sensor_noise`, which
    took a third of a pair.
    """
    noise = cv2.LUT(rng.integers(0, 256, image.shape, np.uint8), _NORMAL_OF_BYTE)
    std = level * np.sqrt(0.5 + np.arange(256, dtype=np.float32) / 510)
    return cv2.add(image, noise * cv2.LUT(image, std.astype(np.float32)), dtype=cv2.CV_8U)


def _lose_resolution(image: Image, scale: float) -> Image:
    height, width = image.shape[:2]
    # By its size: with factors OpenCV samples by these, and what it rounds the size to is a shift.
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
