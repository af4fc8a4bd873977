"""Walls papered with crops of photographs; no crop is used twice the same way."""

from __future__ import annotations

from collections.abc import Sequence

from coam_ros.rendering.photometric import adjust_exposure
import cv2
import numpy as np
from numpy.typing import NDArray


class PhotographDeck:
    """Deals photographs in shuffled order, all of them before any comes again."""

    def __init__(self, photographs: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> None:
        """Shuffle.

        Args:
            photographs: at least one (H, W, 3) uint8 RGB image.
            rng: source of randomness.

        Raises:
            ValueError: without photographs.
        """
        if not photographs:
            raise ValueError('Got 0 photographs, wanted at least 1; pass some.')
        self._photographs = list(photographs)
        self._rng = rng
        self._order: list[int] = []

    def deal(self, height_px: int, width_px: int) -> NDArray[np.uint8]:
        """Cut a varied crop: random part, size, flip, quarter turn, brightness and tint.

        Args:
            height_px: height wanted.
            width_px: width wanted.

        Returns:
            (height_px, width_px, 3) uint8 RGB.
        """
        if not self._order:
            self._order = list(self._rng.permutation(len(self._photographs)))
        rng, photograph = self._rng, self._photographs[self._order.pop()]
        photograph = np.rot90(photograph, rng.choice(4, p=(0.55, 0.15, 0.15, 0.15)))
        if rng.random() < 0.5:
            photograph = photograph[:, ::-1]
        height, width = photograph.shape[:2]
        largest = min(height / height_px, width / width_px)
        # Texels per photograph pixel between 1 / 2.5 and 1.5, so that the crop stays sharp.
        scale = np.clip(np.exp(rng.uniform(np.log(0.65), np.log(2.5))), None, largest)
        crop_height, crop_width = int(height_px * scale), int(width_px * scale)
        top = rng.integers(0, height - crop_height + 1)
        left = rng.integers(0, width - crop_width + 1)
        crop = photograph[top : top + crop_height, left : left + crop_width]
        interpolation = cv2.INTER_AREA if scale > 1.0 else cv2.INTER_CUBIC
        crop = cv2.resize(
            np.ascontiguousarray(crop), (width_px, height_px), interpolation=interpolation
        )
        return self._vary(crop)

    def _vary(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Change contrast and colour as another print of the same photograph would."""
        gamma = np.exp(self._rng.uniform(-0.35, 0.35))
        gains = self._rng.uniform(0.85, 1.25) * self._rng.uniform(0.8, 1.1, 3)
        return adjust_exposure(crop, gains, gamma)


def paper_surface(
    deck: PhotographDeck,
    rng: np.random.Generator,
    size_m: tuple[float, float],
    texels_per_m: float,
    picture_share: float,
) -> NDArray[np.uint8]:
    """Cover a surface with blended crops and hang framed pictures on it.

    Args:
        deck: where the crops come from.
        rng: source of randomness.
        size_m: width and height of the surface.
        texels_per_m: resolution.
        picture_share: area of all pictures over the area of the surface; they may overlap.

    Returns:
        (H, W, 3) uint8 RGB texture.
    """
    width, height = (max(8, round(length * texels_per_m)) for length in size_m)
    surface = _uneven_paint(rng, height, width)
    area_m2 = size_m[0] * size_m[1]
    for _ in range(int(np.ceil(2.5 * area_m2))):
        _blend_crop(surface, deck, rng, texels_per_m)
    hung_m2 = 0.0
    while hung_m2 < picture_share * area_m2:
        hung_m2 += _hang_picture(surface, deck, rng, texels_per_m)
    return surface


def _uneven_paint(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Paint of a colour that drifts from place to place, with spots of several sizes."""
    paint = np.zeros((height, width, 3), np.float32)
    paint += (rng.uniform(80.0, 190.0) + rng.uniform(-25.0, 25.0, 3)).astype(np.float32)
    for cell_px, amplitude in ((320, 25.0), (64, 14.0), (12, 10.0), (4, 6.0)):
        cells = (max(2, height // cell_px + 2), max(2, width // cell_px + 2))
        spots = rng.normal(0.0, amplitude, (*cells, 1)) + rng.normal(0, amplitude / 4, (*cells, 3))
        spots = spots.astype(np.float32)
        paint += cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(paint, 0, 255).astype(np.uint8)


def _blend_crop(
    surface: NDArray[np.uint8],
    deck: PhotographDeck,
    rng: np.random.Generator,
    texels_per_m: float,
) -> None:
    """Blend one crop into the surface with soft borders."""
    size = (rng.uniform(0.6, 1.4, 2) * texels_per_m).astype(int)
    crop = deck.deal(*np.maximum(size, 8))
    ramps = [np.hanning(n) ** 0.35 for n in crop.shape[:2]]
    alpha = (rng.uniform(0.4, 0.85) * np.outer(*ramps))[..., None].astype(np.float32)
    _paste(surface, crop, alpha, rng)


def _hang_picture(
    surface: NDArray[np.uint8],
    deck: PhotographDeck,
    rng: np.random.Generator,
    texels_per_m: float,
) -> float:
    """Hang one picture, most with a frame and slightly askew; return its area [m^2]."""
    size_m = np.exp(rng.uniform(np.log(0.25), np.log(1.1), 2))
    crop = deck.deal(*np.maximum((size_m * texels_per_m).astype(int), 8))
    frame_px = int(rng.uniform(0.0, 0.03) * texels_per_m)
    if frame_px:
        colour = np.clip(rng.integers(20, 235) + rng.integers(-35, 36, 3), 0, 255).tolist()
        cv2.rectangle(crop, (0, 0), (crop.shape[1] - 1, crop.shape[0] - 1), colour, 2 * frame_px)
    height, width = crop.shape[:2]
    angle_deg = float(rng.normal(0.0, 6.0))
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    out_width, out_height = int(width * cos + height * sin), int(width * sin + height * cos)
    turn[:, 2] += ((out_width - width) / 2, (out_height - height) / 2)
    out_size = (out_width, out_height)
    alpha = cv2.warpAffine(np.ones((height, width), np.float32), turn, out_size)[..., None]
    crop = cv2.warpAffine(crop, turn, out_size, borderMode=cv2.BORDER_REPLICATE)
    _paste(surface, crop, alpha, rng)
    return float(np.prod(size_m))


def _paste(
    surface: NDArray[np.uint8],
    crop: NDArray[np.uint8],
    alpha: NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    """Blend a crop at a random place, where a quarter of it may fall beside the surface."""
    (height, width), (crop_height, crop_width) = surface.shape[:2], crop.shape[:2]
    top, left = (
        int(rng.integers(-n // 4, max(1 - n // 4, size - 3 * n // 4)))
        for n, size in ((crop_height, height), (crop_width, width))
    )
    on_crop = np.s_[max(-top, 0) : height - top, max(-left, 0) : width - left]
    crop, alpha = crop[on_crop], alpha[on_crop]
    top, left = max(top, 0), max(left, 0)
    under = surface[top : top + len(crop), left : left + crop.shape[1]]
    blend = under + alpha * (crop.astype(np.float32) - under)
    under[...] = np.clip(blend, 0, 255)
