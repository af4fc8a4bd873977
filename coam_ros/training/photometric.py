"""Photometric change of a training view: light, colour, blur, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def vary_photometry(image: Image, rng: np.random.Generator) -> Image:
    """Return the view as another camera in another light might have taken it.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: source of all randomness.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    x = image.astype(np.float32) / 255
    x = np.clip(x, 0, 1) ** np.exp(rng.normal(0, 0.3))
    x = x * np.exp(rng.normal(0, 0.08, 3)).astype(np.float32)
    x = (x - x.mean()) * np.exp(rng.normal(0, 0.25)) + x.mean() + rng.normal(0, 0.08)
    if rng.random() < 0.15:
        x = np.repeat(x.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.4:
        x = x * _light_field(x.shape[:2], rng)[..., None]
    if rng.random() < 0.3:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.12:
        x = cv2.filter2D(x, -1, _motion_kernel(rng))
    if rng.random() < 0.4:
        x = x + rng.normal(0, rng.uniform(0, 0.05), x.shape).astype(np.float32)
    out = np.clip(x * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        quality = int(rng.integers(30, 90))
        encoded = cv2.imencode('.jpg', out, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return out


def _light_field(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth multiplicative light: a gradient over the image or the hard edge of a shadow."""
    height, width = shape
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    position = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    softness = np.exp(rng.uniform(np.log(0.02), np.log(1.0)))
    edge = 1 / (1 + np.exp(-(position - rng.uniform(-0.3, 0.3)) / softness))
    darkest = rng.uniform(0.35, 1.0)
    return (darkest + (1 - darkest) * edge).astype(np.float32)


def _motion_kernel(rng: np.random.Generator) -> NDArray[np.float32]:
    length = int(rng.integers(3, 9))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    half = (length - 1) / 2
    offset = np.array([np.cos(angle), np.sin(angle)]) * half
    start, end = np.rint(half - offset).astype(int), np.rint(half + offset).astype(int)
    cv2.line(kernel, tuple(start.tolist()), tuple(end.tolist()), 1.0)
    return kernel / kernel.sum()
