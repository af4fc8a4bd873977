"""Pairs made of photos by one change at a time, to see where a matcher gives up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coam_ros.evaluation.data.errors import BenchmarkDataError
from coam_ros.evaluation.data.image_pairs import PlanarPair, resize_for_matching
from coam_ros.geometry.image_views import resize_view, rotation_2d
from coam_ros.matching.image_files import read_image
from coam_ros.rendering.photometric import adjust_exposure, defocus_blur
import cv2
import numpy as np
from numpy.typing import NDArray

NUM_PHOTOS = 10
_SUFFIXES = {'.jpg', '.jpeg', '.png', '.ppm'}
# On every second image, so that none is a copy [grey levels].
_LEAST_NOISE = 2.0
# Warps are drawn at so many times the size and averaged: what shrinks does not alias.
_OVERSAMPLING = 3

_Geometry = Callable[[float, tuple[int, int]], NDArray[np.float64]]
_Photometry = Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]


def _rotation(degrees: float, size: tuple[int, int]) -> NDArray[np.float64]:
    turn = np.eye(3)
    turn[:2, :2] = rotation_2d(degrees)
    return turn


def _scale(factor: float, size: tuple[int, int]) -> NDArray[np.float64]:
    return np.diag([factor, factor, 1.0])


def _tilt(degrees: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """Turn the picture about its vertical axis before a camera of 53 degrees."""
    angle, focal_px = np.radians(degrees), float(size[0])
    return np.array([[np.cos(angle), 0, 0], [0, 1, 0], [np.sin(angle) / focal_px, 0, 1]])


def _shift(overlap: float, size: tuple[int, int]) -> NDArray[np.float64]:
    return np.array([[1, 0, (overlap - 1) * size[0]], [0, 1, 0], [0, 0, 1]])


def _no_motion(level: float, size: tuple[int, int]) -> NDArray[np.float64]:
    return np.eye(3)


def _no_change(image: NDArray[np.uint8], level: float) -> NDArray[np.uint8]:
    return image


def _gamma(image: NDArray[np.uint8], exponent: float) -> NDArray[np.uint8]:
    return adjust_exposure(image, gamma=exponent)


@dataclass(frozen=True)
class Change:
    """One way in which the second image differs.

    Attributes:
        unit: of the levels.
        levels: how much, from least to most.
        geometry: homography about the middle of the image, from the level and the size.
        photometry: of an image and the level.
        noise: standard deviation of the noise for a level, in grey levels.
    """

    unit: str
    levels: tuple[float, ...]
    geometry: _Geometry = _no_motion
    photometry: _Photometry = _no_change
    noise: Callable[[float], float] = lambda level: 0.0


SWEEPS = {
    'rotation': Change('deg', (0, 15, 30, 45, 60, 90, 120, 150, 180), _rotation),
    'scale': Change('times nearer', (1, 1.5, 2, 2.5, 3, 4), _scale),
    'tilt': Change('deg', (0, 30, 50, 60, 70, 80), _tilt),
    'overlap': Change('share of the width', (1, 0.5, 0.35, 0.25, 0.15, 0.1), _shift),
    'blur': Change('px, Gaussian', (0, 2, 4, 6, 9, 12), photometry=defocus_blur),
    'gamma': Change('exponent', (0.125, 0.25, 0.5, 1, 2, 4, 8), photometry=_gamma),
    'noise': Change('grey levels', (0, 20, 40, 60, 90, 120), noise=float),
}


@dataclass(frozen=True, eq=False)
class SweptPair(PlanarPair):
    """A photo and the same photo changed, both at the area at which matchers get images.

    Attributes:
        sweep: what changes, of `SWEEPS`.
        level: how much.
    """

    sweep: str
    level: float

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Make both images; the noise is the same whenever they are made."""
        photo, _ = resize_for_matching(read_image(self.path0))
        change = SWEEPS[self.sweep]
        changed = change.photometry(_warp(photo, self.homography), self.level)
        sigma = np.hypot(_LEAST_NOISE, change.noise(self.level))
        rng = np.random.default_rng(0)
        noisy = changed + rng.normal(0, sigma, changed.shape).astype(np.float32)
        return photo, np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def read_sweep(directory: Path, num_photos: int = NUM_PHOTOS) -> list[SweptPair]:
    """Make pairs of photos, evenly chosen by name: each with each level of each change.

    Raises:
        BenchmarkDataError: the folder holds no photos.
        ValueError: a photo does not decode.
    """
    paths = sorted(path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise BenchmarkDataError(
            f'No photos in {directory}, wanted files with {", ".join(sorted(_SUFFIXES))}; check '
            'the path.'
        )
    chosen = np.unique(np.linspace(0, len(paths) - 1, num_photos).astype(int))
    return [pair for i in chosen for pair in _pairs_of(paths[i])]


def _pairs_of(path: Path) -> list[SweptPair]:
    height, width = resize_for_matching(read_image(path))[0].shape[:2]
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    from_centre = np.linalg.inv(centre)
    return [
        SweptPair(
            name=f'{path.name} {sweep} {level:g}',
            path0=path,
            path1=path,
            homography=centre @ change.geometry(level, (width, height)) @ from_centre,
            sweep=sweep,
            level=level,
        )
        for sweep, change in SWEEPS.items()
        for level in change.levels
    ]


def _warp(image: NDArray[np.uint8], homography: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Warp within the size of the image; what it does not show gets its mean colour."""
    height, width = image.shape[:2]
    warped = cv2.warpPerspective(
        image,
        resize_view(_OVERSAMPLING) @ homography,
        (_OVERSAMPLING * width, _OVERSAMPLING * height),
        flags=cv2.INTER_LINEAR,
        borderValue=image.mean(axis=(0, 1)).tolist(),
    )
    return np.asarray(cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
