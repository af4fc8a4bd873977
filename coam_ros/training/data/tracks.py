"""Pairs from photos with points in common that structure from motion found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from coam_ros.geometry.image_views import Image, is_inside, Points, transform, warp
from coam_ros.mapping.importers.pair_list import read_pair_list
from coam_ros.matching.image_files import read_image
from coam_ros.training.config_file import check_least
from coam_ros.training.data.pairs import (
    draw_until_made,
    MATCHED,
    PairFinisher,
    SourceConfig,
    TrainingPair,
)
from coam_ros.training.data.reading import ArrayCache, check_image, warn_of_skipped
from coam_ros.training.data.views import random_crop, ViewSpec
import numpy as np

# Common points that the two crops must share.
_MIN_MATCHED = 20


@dataclass(frozen=True, kw_only=True)
class TrackSourceConfig(SourceConfig):
    """A scene: images, `pairs.txt` and `points/IMAGE.npz` with `xy` (N, 2) px and `id` (N).

    Attributes:
        min_tracks: pairs of images with fewer common points are left out.
        is_precise: whether the points are good to about a pixel, as structure from motion's are.
    """

    min_tracks: int = 40
    is_precise: bool = True

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        super().__post_init__()
        check_least('', self, min_tracks=1)


class TrackPairMaker:
    """Cuts training pairs out of two images with known common points."""

    def __init__(self, config: SourceConfig, spec: ViewSpec, *, is_precise: bool) -> None:
        """Take the settings of a source."""
        self._crop = config.crop
        self._size = spec.size
        self._is_precise = is_precise
        self._finisher = PairFinisher(config, spec)

    def make(
        self, images: tuple[Image, Image], points: tuple[Points, Points], rng: np.random.Generator
    ) -> TrainingPair | None:
        """Cut a view out of each image, around a common point.

        Args:
            images: (H, W, 3) uint8 RGB.
            points: (N, 2) pixels of the common points in each image, at least one.
            rng: source of randomness.

        Returns:
            None where the views share too few points.
        """
        centre = rng.integers(len(points[0]))
        crops = [
            random_crop(image.shape[1::-1], self._size, self._crop, rng, xy[centre])
            for image, xy in zip(images, points, strict=True)
        ]
        points0, points1 = (transform(xy, crop) for xy, crop in zip(points, crops, strict=True))
        keep = is_inside(points0, self._size) & is_inside(points1, self._size)
        if keep.sum() < _MIN_MATCHED:
            return None
        views = tuple(
            warp(image, crop, self._size) for image, crop in zip(images, crops, strict=True)
        )
        state = np.full(int(keep.sum()), MATCHED)
        return self._finisher.finish(
            views, (points0[keep], points1[keep]), state, rng, is_precise=self._is_precise
        )


class TrackSource:
    """Pairs of photos with structure-from-motion tracks in common."""

    def __init__(self, config: TrackSourceConfig, spec: ViewSpec) -> None:
        """Read pairs and tracks; images are read when they are drawn.

        Raises:
            FileNotFoundError: no `pairs.txt`.
            ValueError: no pair with enough common points.
        """
        self._directory = Path(config.path)
        self._maker = TrackPairMaker(config, spec, is_precise=config.is_precise)
        self._cache = ArrayCache(config.cache_mb)
        listed = read_pair_list(self._directory / 'pairs.txt')
        tracks, skipped = {}, {}
        for name in {name for pair in listed for name in pair.names}:
            try:
                tracks[name] = self._read_tracks(name)
            except (OSError, EOFError, BadZipFile, KeyError, ValueError) as error:
                skipped[Path(name)] = str(error)
        warn_of_skipped(self._directory, 'images', skipped, len(skipped) + len(tracks))
        self._pairs = []
        for pair in listed:
            if not all(name in tracks for name in pair.names):
                continue
            (xy0, id0), (xy1, id1) = (tracks[name] for name in pair.names)
            _, index0, index1 = np.intersect1d(id0, id1, return_indices=True)
            if len(index0) >= config.min_tracks:
                self._pairs.append((*pair.names, xy0[index0], xy1[index1]))
        if not self._pairs:
            raise ValueError(
                f'{self._directory}: none of {len(listed)} pairs has {config.min_tracks} common '
                'points; check points/*.npz, or lower min_tracks.'
            )

    def sample(self, rng: np.random.Generator, item: int = 0) -> TrainingPair:
        """Return two crops that hold common tracks; see `PairSource.sample`."""
        wanted = f'crops that share {_MIN_MATCHED} tracks'
        return draw_until_made(lambda: self._draw(rng), str(self._directory), wanted)

    def _draw(self, rng: np.random.Generator) -> TrainingPair | None:
        name0, name1, xy0, xy1 = self._pairs[rng.integers(len(self._pairs))]
        if rng.random() < 0.5:
            name0, name1, xy0, xy1 = name1, name0, xy1, xy0
        return self._maker.make((self._image(name0), self._image(name1)), (xy0, xy1), rng)

    def _image(self, name: str) -> Image:
        return self._cache.get(name, lambda: read_image(self._directory / name))

    def _read_tracks(self, name: str) -> tuple[Points, np.ndarray]:
        check_image(self._directory / name)
        for stem in (name, Path(name).stem):
            path = self._directory / 'points' / f'{stem}.npz'
            if path.is_file():
                with np.load(path, allow_pickle=False) as points:
                    xy, ids = points['xy'].astype(np.float32), points['id']
                if xy.shape != (*ids.shape, 2):
                    raise ValueError(
                        f'{path} has xy of shape {xy.shape} and id of {ids.shape}, wanted (N, 2) '
                        'and (N,); write it again.'
                    )
                return xy, ids
        raise FileNotFoundError(f'no points/{Path(name).stem}.npz')
