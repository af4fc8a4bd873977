"""Random views of images: what of an image the network gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coam_ros.geometry.image_views import Matrix, Points, rotation_2d
from coam_ros.inference.manifest import BLOCK_PX
import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ViewSpec:
    """What the network gets of every image.

    Attributes:
        size: (width, height) of the views [px].
        num_points: points a pair.
        points: whether they are middles of blocks, as the matcher selects them, or any pixels.
    """

    size: tuple[int, int]
    num_points: int
    points: Literal['blocks', 'pixels'] = 'blocks'

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        if len(self.size) != 2 or min(self.size) < 32 or any(side % 32 for side in self.size):
            raise ValueError(
                f'View size is {self.size}, wanted width and height as multiples of 32 px, which '
                'the deepest level of the network needs; choose others.'
            )
        if self.num_points < 1:
            raise ValueError(f'{self.num_points} points a pair, wanted at least 1; raise it.')

    def draw_points(self, count: int, rng: np.random.Generator) -> Points:
        """Draw points of a view: (count, 2) float32 pixels."""
        step = BLOCK_PX if self.points == 'blocks' else 1
        cells = np.stack([rng.integers(0, side // step, count) for side in self.size], axis=1)
        return ((cells + 0.5) * step - 0.5).astype(np.float32)


@dataclass(frozen=True)
class CropConfig:
    """Crops of an image: how much of it a view shows, and how that is turned.

    Both views of a pair are drawn on their own, so a pair differs in scale by up to
    `max_extent / min_extent`, and in rotation by sqrt(2) times the deviation.

    Attributes:
        min_extent: least share of the image that a view shows, along the side that fits.
        max_extent: largest share; 1 shows all of it along that side.
        rotation_std_deg: standard deviation of the turn.
        free_rotation_share: share of the crops that turn by any angle instead.
        max_shift: how far the point that a view is made for lies from its middle, in shares of
            the view's extent.
    """

    min_extent: float = 0.45
    max_extent: float = 1.0
    rotation_std_deg: float = 6.0
    free_rotation_share: float = 0.0
    max_shift: float = 0.25

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        if not 0 < self.min_extent <= self.max_extent <= 1:
            raise ValueError(
                f'Crops show {self.min_extent} to {self.max_extent} of an image, wanted '
                '0 < min_extent <= max_extent <= 1; correct them.'
            )
        check_not_negative(self, 'rotation_std_deg', 'max_shift')
        check_share('free_rotation_share', self.free_rotation_share)


@dataclass(frozen=True)
class HomographyConfig:
    """Viewpoint change of a photo: from the first view to the second.

    Attributes:
        max_tilt: how far a corner moves on its own, in shares of the view's side: perspective.
        rotation_std_deg: standard deviation of the turn.
        free_rotation_share: share of the pairs that turn by any angle instead: a robot's camera
            is mostly upright, hand-held ones are not.
        min_scale: smallest change of scale.
        max_scale: largest change of scale; the logarithm is uniform.
        max_shift: largest shift, in shares of the view's side.
    """

    max_tilt: float = 0.22
    rotation_std_deg: float = 18.0
    free_rotation_share: float = 0.125
    min_scale: float = 0.55
    max_scale: float = 1.8
    max_shift: float = 0.25

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(
                f'Homographies scale by {self.min_scale} to {self.max_scale}, wanted '
                '0 < min_scale <= max_scale; correct them.'
            )
        # At 0.5 two corners may meet, and the view folds.
        if not 0 <= self.max_tilt < 0.5:
            raise ValueError(f'max_tilt is {self.max_tilt}, wanted 0 <= max_tilt < 0.5; lower it.')
        check_not_negative(self, 'rotation_std_deg', 'max_shift')
        check_share('free_rotation_share', self.free_rotation_share)


def check_share(name: str, value: float) -> None:
    """Raise a ValueError where a share is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f'{name} is {value}, wanted a share from 0 to 1; correct it.')


def check_not_negative(config: object, *names: str) -> None:
    """Raise a ValueError where a field is negative or infinite."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < float('inf'):
            raise ValueError(f'{name} is {value}, wanted a number of at least 0; correct it.')


def random_crop(
    image_size: tuple[int, int],
    size: tuple[int, int],
    config: CropConfig,
    rng: np.random.Generator,
    centre: NDArray[np.floating] | None = None,
) -> Matrix:
    """Draw a similarity from image pixels to a view.

    Args:
        image_size: (width, height) of the image [px].
        size: (width, height) of the view [px].
        config: what to draw.
        rng: source of randomness.
        centre: (2,) pixel that the view shall show; None for any part of the image.

    Returns:
        (3, 3) float64.
    """
    fit = max(size[0] / image_size[0], size[1] / image_size[1])
    scale = fit / rng.uniform(config.min_extent, config.max_extent)
    extent = np.array(size) / scale
    if centre is None:
        centre = rng.uniform(0, 1, 2) * (np.array(image_size) - extent) + extent / 2
    else:
        centre = centre + rng.uniform(-config.max_shift, config.max_shift, 2) * extent
        limit = np.maximum(np.array(image_size) - extent / 2, extent / 2)
        centre = np.clip(centre, extent / 2, limit)
    crop = np.eye(3)
    crop[:2, :2] = scale * _random_rotation(
        config.rotation_std_deg, config.free_rotation_share, rng
    )
    # (0, 0) is the centre of a pixel: the middle of `side` pixels is at (side - 1) / 2.
    crop[:2, 2] = (np.array(size) - 1) / 2 - crop[:2, :2] @ (centre - 0.5)
    return crop


def random_homography(
    size: tuple[int, int], config: HomographyConfig, rng: np.random.Generator
) -> Matrix:
    """Draw the viewpoint change of a plane that fills the view.

    Args:
        size: (width, height) of both views [px].
        config: what to draw.
        rng: source of randomness.

    Returns:
        (3, 3) float64 from pixels of the first view to pixels of the second.
    """
    extent = np.array(size, np.float64)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * extent
    tilt = rng.uniform(-config.max_tilt, config.max_tilt, (4, 2)) * extent * rng.random()
    rotation = _random_rotation(config.rotation_std_deg, config.free_rotation_share, rng)
    scale = np.exp(rng.uniform(np.log(config.min_scale), np.log(config.max_scale)))
    shift = rng.uniform(-config.max_shift, config.max_shift, 2) * extent
    target = (corners + tilt - extent / 2) @ (scale * rotation).T + extent / 2 + shift
    return cv2.getPerspectiveTransform(corners.astype(np.float32), target.astype(np.float32))


def _random_rotation(std_deg: float, free_share: float, rng: np.random.Generator) -> Matrix:
    is_free = rng.random() < free_share
    return rotation_2d(rng.uniform(-180, 180) if is_free else rng.normal(0, std_deg))
