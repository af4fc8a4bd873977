"""Pairs out of posed keyframes with depth: what RGB-D recordings and keyframe maps share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coam_ros.mapping.keyframe import Keyframe
from coam_ros.training.data.pairs import draw_until_made, SourceConfig, TrainingPair
from coam_ros.training.data.posed_depth import (
    CoarseDepth,
    DepthFrame,
    DepthPairMaker,
    DepthTolerance,
)
from coam_ros.training.data.reading import ArrayCache, warn_of_skipped
from coam_ros.training.data.views import ViewSpec
import numpy as np


class KeyframePairSource:
    """Pairs of overlapping keyframes with depth."""

    def __init__(
        self,
        config: SourceConfig,
        spec: ViewSpec,
        keyframes: Sequence[Keyframe],
        pairs: Sequence[tuple[int, int]],
        tolerance: DepthTolerance,
        *,
        is_precise: bool,
    ) -> None:
        """Take keyframes and the pairs of them that overlap.

        Args:
            config: of the source.
            spec: of the views.
            keyframes: with depth; may read a keyframe from disk when it is asked for.
            pairs: indices of keyframes, at least one pair.
            tolerance: of the depth.
            is_precise: whether depth and poses are good to about a pixel.
        """
        self._path = config.path
        self._keyframes = keyframes
        self._pairs = pairs
        self._maker = DepthPairMaker(config, spec, tolerance, is_precise=is_precise)
        self._cache = ArrayCache(config.cache_mb)

    def sample(self, rng: np.random.Generator, item: int = 0) -> TrainingPair:
        """Return two views of the scene; see `PairSource.sample`."""
        return draw_until_made(lambda: self._draw(rng), self._path, 'frames that overlap')

    def _draw(self, rng: np.random.Generator) -> TrainingPair | None:
        i, j = self._pairs[rng.integers(len(self._pairs))]
        return self._maker.make(self._frame(i), self._frame(j), rng)

    def _frame(self, index: int) -> DepthFrame:
        return self._cache.get(index, lambda: _depth_frame(self._keyframes[index]))


def survey(
    source: Path, keyframes: Sequence[Keyframe], names: Sequence[str]
) -> tuple[list[int], list[CoarseDepth]]:
    """Look at every keyframe once; one warning names and counts those that cannot be used.

    Args:
        source: where they come from, for the warning.
        keyframes: N keyframes; reading one may raise a ValueError.
        names: N names.

    Returns:
        Indices of the keyframes with depth, and what their overlap is judged by.

    Raises:
        ValueError: no keyframe is left.
    """
    usable, coarse, skipped = [], [], {}
    for index, name in enumerate(names):
        try:
            keyframe = keyframes[index]
            depth = keyframe.decode_depth_m()
        except (OSError, ValueError) as error:
            skipped[Path(name)] = str(error)
            continue
        if depth is None or not np.isfinite(depth).any():
            skipped[Path(name)] = 'no depth'
            continue
        usable.append(index)
        coarse.append(CoarseDepth.of(depth, keyframe.camera, keyframe.T_map_camera))
    warn_of_skipped(source, 'frames', skipped, len(names))
    if not usable:
        raise ValueError(
            f'{source}: none of {len(names)} frames has an image, a pose and depth, wanted at '
            'least two; bring the files that the warning names, or leave the source out.'
        )
    return usable, coarse


def _depth_frame(keyframe: Keyframe) -> DepthFrame:
    depth = keyframe.decode_depth_m()
    assert depth is not None, 'survey() leaves out keyframes without depth'
    return DepthFrame(keyframe.decode_image(), depth, keyframe.camera, keyframe.T_map_camera)
