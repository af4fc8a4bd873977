"""Pairs from a folder of photos: two random homographies of one photo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from coam_ros.geometry.image_views import Image, is_inside, transform, warp
from coam_ros.matching.image_files import read_image
from coam_ros.training.data.pairs import (
    IGNORED,
    MATCHED,
    PairFinisher,
    SourceConfig,
    TrainingPair,
    UNMATCHED,
)
from coam_ros.training.data.reading import ArrayCache, largest_reduction, list_photos
from coam_ros.training.data.views import (
    check_share,
    HomographyConfig,
    random_crop,
    random_homography,
    ViewSpec,
)
import numpy as np


@dataclass(frozen=True, kw_only=True)
class PhotoSourceConfig(SourceConfig):
    """A folder of photos (.jpg, .png; sub-folders count).

    Attributes:
        homography: the change from the first view to the second.
        unrelated_share: share of pairs made of two different photos, which have nothing in
            common: no point of the first is in the second. A folder of one photo has none.
    """

    homography: HomographyConfig = field(default_factory=HomographyConfig)
    unrelated_share: float = 0.04

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        super().__post_init__()
        check_share('unrelated_share', self.unrelated_share)


class PhotoSource:
    """Two random homographies of one photo; now and then of two photos that share nothing."""

    def __init__(self, config: PhotoSourceConfig, spec: ViewSpec) -> None:
        """Find the photos and check them.

        Raises:
            FileNotFoundError: no such folder.
            ValueError: no usable photo.
        """
        self._config = config
        self._spec = spec
        self._size = spec.size
        self._finisher = PairFinisher(config, spec)
        self._photos = list(list_photos(Path(config.path)).items())
        self._cache = ArrayCache(config.cache_mb)

    def sample(self, rng: np.random.Generator, item: int = 0) -> TrainingPair:
        """Return two views of a photo; see `PairSource.sample`."""
        index = int(rng.integers(len(self._photos)))
        photo = self._photo(index)
        base = self._crop(photo, rng)
        image0 = warp(photo, base, self._size)
        points0 = self._spec.draw_points(self._spec.num_points, rng)
        if rng.random() < self._config.unrelated_share and len(self._photos) > 1:
            step = int(rng.integers(1, len(self._photos)))
            other = self._photo((index + step) % len(self._photos))
            image1 = warp(other, self._crop(other, rng), self._size)
            points1, state = points0, np.full(len(points0), UNMATCHED)
        else:
            change = random_homography(self._size, self._config.homography, rng)
            image1 = warp(photo, change @ base, self._size)
            points1 = transform(points0, change)
            # A view may reach past the photo's border: what lies there is only black.
            in_photo = is_inside(transform(points0, np.linalg.inv(base)), photo.shape[1::-1])
            is_visible = is_inside(points1, self._size)
            state = np.where(in_photo, np.where(is_visible, MATCHED, UNMATCHED), IGNORED)
        return self._finisher.finish(
            (image0, image1), (points0, points1), state, rng, is_precise=True
        )

    def _photo(self, index: int) -> Image:
        path, size = self._photos[index]
        # The most magnified view shows `min_extent` of the photo, `max_scale` times as large in
        # the second view: more pixels are never seen.
        zoom = max(1.0, self._config.homography.max_scale) / self._config.crop.min_extent
        wanted = tuple(side * zoom for side in self._size)
        reduction = largest_reduction(size, wanted)
        return self._cache.get(path, lambda: read_image(path, reduction))

    def _crop(self, photo: Image, rng: np.random.Generator) -> np.ndarray:
        return random_crop(photo.shape[1::-1], self._size, self._config.crop, rng)
