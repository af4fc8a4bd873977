"""Pairs of keyframes of a user's map, to adapt the network to a site."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coam_ros.geometry.image_views import Image
from coam_ros.mapping.keyframe import Keyframe
from coam_ros.mapping.storage import load_map
from coam_ros.training.config_file import check_least
from coam_ros.training.data.keyframe_pairs import KeyframePairSource, survey
from coam_ros.training.data.pairs import draw_until_made, SourceConfig, TrainingPair
from coam_ros.training.data.posed_depth import DepthTolerance, overlapping_pairs
from coam_ros.training.data.reading import ArrayCache
from coam_ros.training.data.tracks import TrackPairMaker
from coam_ros.training.data.views import ViewSpec
import numpy as np
from numpy.typing import NDArray

# Landmarks are one where their coordinates agree to this.
_LANDMARK_DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class KeyframeMapSourceConfig(SourceConfig):
    """A map directory of `coam map build`.

    Keyframes with depth make pairs by depth; in a map without any depth, keyframes make pairs by
    the landmarks that they share.

    Attributes:
        hold_back_every: every n-th keyframe is held back, to judge the result on; 0 uses all.
        part: training makes pairs of the keyframes that are not held back; held_back makes pairs
            of one that is and one that is not, as in localization.
        num_neighbours: keyframes, by distance of the cameras, that each one is compared with.
        min_overlap: share of the first keyframe that the second must show.
        min_landmarks: common landmarks of a pair, in a map without depth.
        relative_tolerance: share of the depth by which two depths of one surface may differ.
        absolute_tolerance_m: what is added to it.
        is_precise: whether poses and depth are good to about a pixel; the sub-pixel loss is left
            out where they are not.
    """

    cache_mb: int = 512
    hold_back_every: int = 5
    part: Literal['training', 'held_back'] = 'training'
    num_neighbours: int = 60
    min_overlap: float = 0.2
    min_landmarks: int = 40
    relative_tolerance: float = 0.03
    absolute_tolerance_m: float = 0.02
    is_precise: bool = True

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        super().__post_init__()
        check_least('', self, num_neighbours=1, min_landmarks=1)
        if self.hold_back_every < 0 or self.hold_back_every == 1:
            raise ValueError(
                f'hold_back_every is {self.hold_back_every}, wanted 0 for none, or at least 2; '
                'correct it.'
            )
        if self.part == 'held_back' and not self.hold_back_every:
            raise ValueError(
                'hold_back_every is 0 and part is held_back: nothing is; set hold_back_every to '
                'at least 2.'
            )


def split_keyframes(
    keyframes: Iterable[Keyframe], hold_back_every: int
) -> tuple[list[Keyframe], list[Keyframe]]:
    """Split a map into keyframes to train on and keyframes to judge the result on.

    Args:
        keyframes: of a map, in its order.
        hold_back_every: n of every n-th that is held back; 0 holds back none.

    Returns:
        Keyframes to train on, keyframes held back.
    """
    keyframes = list(keyframes)
    if not hold_back_every:
        return keyframes, []
    # From the middle of the first n: the ends of a walk are poor examples.
    held_back = set(range(hold_back_every // 2, len(keyframes), hold_back_every))
    return (
        [keyframe for i, keyframe in enumerate(keyframes) if i not in held_back],
        [keyframe for i, keyframe in enumerate(keyframes) if i in held_back],
    )


def open_keyframe_map(
    config: KeyframeMapSourceConfig, spec: ViewSpec
) -> KeyframePairSource | LandmarkPairSource:
    """Open a map.

    Raises:
        FileNotFoundError: there is no such map.
        ValueError: the map is damaged, or no two of its keyframes make a pair.
    """
    trained, held_back = split_keyframes(load_map(config.path), config.hold_back_every)
    if config.part == 'held_back' and not held_back:
        raise ValueError(
            f'{config.path}: of {len(trained)} keyframes none is held back when every '
            f'{config.hold_back_every}th is; map the site more densely, or lower hold_back_every.'
        )
    keyframes = trained if config.part == 'training' else trained + held_back
    is_held_back = np.arange(len(keyframes)) >= len(trained)
    if all(keyframe.depth is None for keyframe in keyframes):
        return LandmarkPairSource(config, spec, keyframes, is_held_back)
    names = [f'keyframe {keyframe.id}' for keyframe in keyframes]
    usable, coarse = survey(Path(config.path), keyframes, names)
    keyframes = [keyframes[index] for index in usable]
    candidates = _neighbours(keyframes, is_held_back[usable], config)
    pairs = overlapping_pairs(coarse, candidates, config.min_overlap)
    if not pairs:
        raise ValueError(
            f'{config.path}, part {config.part}: of {len(keyframes)} keyframes no two share '
            f'{config.min_overlap:.0%} of their view; map the site more densely, or lower '
            'min_overlap.'
        )
    tolerance = DepthTolerance(config.relative_tolerance, config.absolute_tolerance_m)
    return KeyframePairSource(
        config, spec, keyframes, pairs, tolerance, is_precise=config.is_precise
    )


class LandmarkPairSource:
    """Pairs of keyframes with landmarks in common."""

    def __init__(
        self,
        config: KeyframeMapSourceConfig,
        spec: ViewSpec,
        keyframes: Sequence[Keyframe],
        is_held_back: NDArray[np.bool_],
    ) -> None:
        """Find the pairs.

        Args:
            config: of the source.
            spec: of the views.
            keyframes: N keyframes.
            is_held_back: (N,) whether a keyframe is; see `_neighbours`.

        Raises:
            ValueError: no two keyframes share enough landmarks.
        """
        self._path = config.path
        self._maker = TrackPairMaker(config, spec, is_precise=config.is_precise)
        self._cache = ArrayCache(config.cache_mb)
        usable = [i for i, k in enumerate(keyframes) if k.landmark_points_map is not None]
        self._keyframes = [keyframes[i] for i in usable]
        self._pairs = self._find_pairs(config, is_held_back[usable])
        if not self._pairs:
            raise ValueError(
                f'{config.path}, part {config.part}: of {len(keyframes)} keyframes without depth '
                f'no two share {config.min_landmarks} landmarks; make the map with depth or with '
                'landmarks.'
            )

    def sample(self, rng: np.random.Generator, item: int = 0) -> TrainingPair:
        """Return two crops that hold common landmarks; see `PairSource.sample`."""
        return draw_until_made(lambda: self._draw(rng), self._path, 'crops that share landmarks')

    def _draw(self, rng: np.random.Generator) -> TrainingPair | None:
        i, j, rows_i, rows_j = self._pairs[rng.integers(len(self._pairs))]
        points = (
            self._keyframes[i].landmark_pixels[rows_i],
            self._keyframes[j].landmark_pixels[rows_j],
        )
        return self._maker.make((self._image(i), self._image(j)), points, rng)

    def _image(self, index: int) -> Image:
        return self._cache.get(index, self._keyframes[index].decode_image)

    def _find_pairs(
        self, config: KeyframeMapSourceConfig, is_held_back: NDArray[np.bool_]
    ) -> list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
        """List pairs with the rows of their common landmarks."""
        if not self._keyframes:
            return []
        points = np.concatenate([k.landmark_points_map for k in self._keyframes])
        _, numbers = np.unique(np.round(points, _LANDMARK_DECIMALS), axis=0, return_inverse=True)
        ends = np.cumsum([len(k.landmark_points_map) for k in self._keyframes])[:-1]
        ids = np.split(numbers.ravel(), ends)
        pairs = []
        for i, others in enumerate(_neighbours(self._keyframes, is_held_back, config)):
            for j in others:
                _, rows_i, rows_j = np.intersect1d(ids[i], ids[j], return_indices=True)
                if len(rows_i) >= config.min_landmarks:
                    pairs.append((i, int(j), rows_i, rows_j))
        return pairs


def _neighbours(
    keyframes: Sequence[Keyframe], is_held_back: NDArray[np.bool_], config: KeyframeMapSourceConfig
) -> list[NDArray[np.int64]]:
    """Indices of the keyframes whose cameras are nearest to each one's, itself left out.

    In the part held_back each keyframe that is held back has neighbours among the others alone,
    and the others have none.
    """
    asks = is_held_back == (config.part == 'held_back')
    centres = np.array([keyframe.T_map_camera[:3, 3] for keyframe in keyframes])
    neighbours = []
    for index, centre in enumerate(centres):
        if not asks[index]:
            neighbours.append(np.empty(0, np.int64))
            continue
        order = np.argsort(np.linalg.norm(centres - centre, axis=1), kind='stable')
        neighbours.append(order[~is_held_back[order] & (order != index)][: config.num_neighbours])
    return neighbours
