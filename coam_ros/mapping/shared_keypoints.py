"""From matches of pairs, each with points of its own, to key points that pairs share.

A semi-dense matcher finds a place of an image anew in every pair, a pixel or so beside where it
found it before. Reconstruction needs one key point a place, or no place is seen in more than two
images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
import math

from coam_ros.geometry.camera import NOMINAL_AREA_PX
from coam_ros.matching import Correspondences
import numpy as np
from numpy.typing import NDArray

# Points of an image this near, at an area of 640 x 480 px, are one key point. Chosen on
# fountain-P11; docs/datasets.md.
MERGE_RADIUS_PX = 0.75
_NEIGHBOURS = list(product((-1, 0, 1), repeat=2))
# Scores are weights; a matcher may give 0.
_MIN_WEIGHT = 1e-6


@dataclass(frozen=True, eq=False)
class PairMatches:
    """Matches of two images of a collection.

    Attributes:
        names: of the two images.
        sizes: (width, height) of both [px].
        found: in pixels of the images as they are.
    """

    names: tuple[str, str]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    found: Correspondences


@dataclass(frozen=True, eq=False)
class SharedKeypoints:
    """Key points of images and matches of pairs by their indices.

    Attributes:
        image_sizes: (width, height) by name of the image [px].
        keypoints: (N, 2) float32 by name of the image; pixels, (0, 0) being the centre of the
            top-left one.
        keypoint_scores: (N,) float32, the sum of the scores of the matches that a point has.
        matches: (M, 2) int64 by names of the pair: key points of the first and of the second
            image, none of them twice; best first.
        match_scores: (M,) float32, of those matches.
    """

    image_sizes: Mapping[str, tuple[int, int]]
    keypoints: Mapping[str, NDArray[np.float32]]
    keypoint_scores: Mapping[str, NDArray[np.float32]]
    matches: Mapping[tuple[str, str], NDArray[np.int64]]
    match_scores: Mapping[tuple[str, str], NDArray[np.float32]]


def share_keypoints(
    matched: Sequence[PairMatches], radius_px: float = MERGE_RADIUS_PX
) -> SharedKeypoints:
    """Merge the points of each image over all pairs.

    Args:
        matched: all pairs of a collection, each once.
        radius_px: points this near are one, at an area of 640 x 480.

    Returns:
        Key points of every image, by name; of matches that end in one key point the best one
        stays.
    """
    image_sizes: dict[str, tuple[int, int]] = {}
    ends: dict[str, list[tuple[int, int]]] = {}
    for place, pair in enumerate(matched):
        for side, name in enumerate(pair.names):
            image_sizes[name] = pair.sizes[side]
            ends.setdefault(name, []).append((place, side))
    keypoints, keypoint_scores = {}, {}
    indices: dict[tuple[int, int], NDArray[np.int64]] = {}
    for name, of_image in sorted(ends.items()):
        points = [_side(matched[place], side) for place, side in of_image]
        scores = [matched[place].found.scores for place, _ in of_image]
        scale = float(np.sqrt(np.prod(image_sizes[name]) / NOMINAL_AREA_PX))
        keypoints[name], keypoint_scores[name], index = merge_points(
            np.concatenate(points), np.concatenate(scores), radius_px * scale
        )
        borders = np.cumsum([len(part) for part in points])[:-1]
        indices.update(zip(of_image, np.split(index, borders), strict=True))
    matches, match_scores = {}, {}
    for place, pair in enumerate(matched):
        both = np.column_stack([indices[place, 0], indices[place, 1]])
        kept = _best_of_each(both, pair.found.scores)
        matches[pair.names], match_scores[pair.names] = both[kept], pair.found.scores[kept]
    return SharedKeypoints(image_sizes, keypoints, keypoint_scores, matches, match_scores)


def merge_points(
    points: NDArray[np.floating], scores: NDArray[np.floating], radius_px: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Merge points that lie near one another.

    The points of each square cell of side `radius_px` are one candidate, at their mean. From the
    candidate of most score down, one that lies within the radius of another one kept before, in a
    neighbouring cell, joins it.

    Args:
        points: (N, 2).
        scores: (N,), weights of the means.
        radius_px: see above.

    Returns:
        (K, 2) merged points, (K,) sums of their scores, and (N,) to which one each point belongs.
    """
    weights = np.maximum(np.asarray(scores, np.float64), _MIN_WEIGHT)
    points = np.asarray(points, np.float64).reshape(-1, 2)
    columns_rows = np.floor(points / radius_px).astype(np.int64)
    cells, cell = np.unique(columns_rows, axis=0, return_inverse=True)
    cell = cell.reshape(-1)  # NumPy 2.0 alone gives it a second axis
    centres, sums = _weighted_means(points, weights, cell, len(cells))
    joined = np.empty(len(cells), np.int64)
    kept: dict[tuple[int, int], int] = {}
    for candidate in np.argsort(-sums, kind='stable'):
        column, row = cells[candidate].tolist()
        near = [kept.get((column + dx, row + dy), -1) for dx, dy in _NEIGHBOURS]
        near = [other for other in near if other >= 0]
        distances = [math.dist(centres[other], centres[candidate]) for other in near]
        if min(distances, default=math.inf) <= radius_px:
            joined[candidate] = near[int(np.argmin(distances))]
        else:
            kept[column, row] = joined[candidate] = candidate
    _, index = np.unique(joined[cell], return_inverse=True)
    merged, sums = _weighted_means(points, weights, index, len(kept))
    return merged.astype(np.float32), sums.astype(np.float32), index.astype(np.int64)


def _weighted_means(
    points: NDArray[np.float64], weights: NDArray[np.float64], group: NDArray[np.int64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sums = np.asarray(np.bincount(group, weights, size), np.float64)
    means = [np.bincount(group, weights * column, size) / sums for column in points.T]
    return np.column_stack(means), sums


def _side(pair: PairMatches, side: int) -> NDArray[np.float32]:
    return pair.found.points1 if side else pair.found.points0


def _best_of_each(both: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Choose rows, best first, so that no index comes twice in a column."""
    order = np.argsort(-scores, kind='stable')
    for column in (0, 1):
        _, first = np.unique(both[order, column], return_index=True)
        order = order[np.sort(first)]
    return order
