"""Matching the pairs of a data set, all matchers under the same rules.

Images go to a matcher as `resize_for_matching` makes them. A pair on which it fails goes on empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coam_ros.evaluation.data.image_collection import ImageCollection
from coam_ros.evaluation.data.image_pairs import ImagePair, resize_for_matching
from coam_ros.evaluation.matchers.cached import CachedMatcher
from coam_ros.geometry.image_views import resize_view
from coam_ros.mapping.shared_keypoints import PairMatches
from coam_ros.matching import Correspondences
from coam_ros.matching.image_files import read_image
from coam_ros.matching.preprocessing import Resizing
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class MatchedPair:
    """What a matcher found in a pair.

    Attributes:
        pair: geometry in pixels of the images as matched.
        images: both as matched, (H, W, 3) uint8 RGB.
        found: empty when the matcher failed.
        duration_s: of the matcher; None where the matches were kept.
        failure: what it said when it failed.
    """

    pair: ImagePair
    images: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    found: Correspondences
    duration_s: float | None
    failure: str | None


@dataclass(frozen=True, eq=False)
class CollectionMatches(PairMatches):
    """What a matcher found in a pair of a collection; nothing when it failed.

    Attributes:
        duration_s: of the matcher; None where the matches were kept.
        failure: what it said when it failed.
    """

    duration_s: float | None
    failure: str | None


def match_images(
    matcher: CachedMatcher, image0: NDArray[np.uint8], image1: NDArray[np.uint8]
) -> tuple[Correspondences, str | None]:
    """Match two images at the area of all benchmarks.

    Returns:
        Matches in pixels of the images as they are, and what the matcher said when it failed.
    """
    (resized0, resizing0), (resized1, resizing1) = map(resize_for_matching, (image0, image1))
    found, failure = matcher.match_or_fail(resized0, resized1)
    return to_images(found, resizing0, resizing1), failure


def to_images(found: Correspondences, resizing0: Resizing, resizing1: Resizing) -> Correspondences:
    """Take matches of resized images to the images as they are."""
    points0, points1 = resizing0.to_image(found.points0), resizing1.to_image(found.points1)
    return Correspondences(points0, points1, found.scores)


def match_pairs(pairs: Sequence[ImagePair], matcher: CachedMatcher) -> Iterator[MatchedPair]:
    """Match pairs one after the other.

    Raises:
        ValueError: an image does not decode.
    """
    for pair in pairs:
        (image0, resizing0), (image1, resizing1) = map(resize_for_matching, pair.read())
        found, failure = matcher.match_or_fail(image0, image1)
        resized = pair.resized(_view(resizing0), _view(resizing1))
        yield MatchedPair(resized, (image0, image1), found, matcher.duration_s, failure)


def _view(resizing: Resizing) -> NDArray[np.float64]:
    """Give (3, 3), pixels of the image to those of the resized one."""
    return resize_view(*np.divide(resizing.resized_size, resizing.image_size))


def match_collection(
    collection: ImageCollection, matcher: CachedMatcher
) -> Iterator[CollectionMatches]:
    """Match all pairs of a collection one after the other.

    Raises:
        ValueError: an image does not decode.
    """
    for names in collection.pairs:
        image0, image1 = (read_image(collection.directory / name) for name in names)
        found, failure = match_images(matcher, image0, image1)
        sizes = (image0.shape[1::-1], image1.shape[1::-1])
        yield CollectionMatches(names, sizes, found, matcher.duration_s, failure)
