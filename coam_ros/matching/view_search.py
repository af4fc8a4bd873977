"""Where two images hardly match as they are: turn and zoom them until they do.

A network that saw mostly upright images matches upright images. A camera that is turned, or much
nearer than the keyframe's was, shows the same place in a view that it does not know. Here several
views of each image are tried; the best says how one image lies in the other, and both are matched
once more, cut out so that they look alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
import math
from typing import Protocol

from coam_ros.geometry.image_views import (
    Image,
    is_inside,
    Matrix,
    rotation_2d,
    transform,
    warp,
)
from coam_ros.matching.alignment import ENOUGH_ALIGNED
from coam_ros.matching.correspondences import Correspondences
from coam_ros.matching.encoded_image import EncodedImage
import cv2
import numpy as np
from numpy.typing import NDArray

# Aligned matches, both ways, from which on the images are left as they are; below, they are cut
# out alike if they are turned or zoomed, and where there are not enough, views come first.
PLENTY_ALIGNED, FEW_ALIGNED = 800, 2 * ENOUGH_ALIGNED
# Up to this scale and turn between them, images look alike.
_LIKE_SCALE, _LIKE_TURN_DEG = 1.25, 15.0
# The better view must give this many times the aligned matches of the images as they are.
_MIN_GAIN = 1.3
_TURNS_DEG = range(0, 360, 45)
# Zooms of the first and of the second image: a small image fills part of its view, of a large one
# the view shows the middle alone. The last two are for cameras 4 to 6 times as near.
_ZOOMS = (
    (1.0, 1.0),
    (0.5, 1.0),
    (1.0, 0.5),
    (2.5, 1.0),
    (1.0, 2.5),
    (0.45, 2.7),
    (2.7, 0.45),
)
# Best views that are cut out alike: at the search's low resolution the right one need not win.
_NUM_CUTS = 3
# Error of a match under the similarity of two views, in shares of the second image's diagonal.
_SIMILARITY_ERROR = 0.01
_MIN_FOR_SIMILARITY = 4
# What the cut leaves around the part that both images show, in shares of its sides.
_MARGIN = 0.1
# No cut is smaller than this along a side [px of the image].
_MIN_CUT_PX = 32.0
# Images with a longer side stay as they are: OpenCV 4 warps none of 32,767 px, and the least cut
# along one would be a strip that no matcher takes.
_MAX_SIDE_PX = 32000
# Finer details than an image of this area shows are not drawn.
_MAX_CUT_AREA_PX = 640 * 480


class Matcher(Protocol):
    """What the search asks of a matcher."""

    def encode(self, image: Image) -> EncodedImage:
        """Encode one image."""

    def match_encoded(
        self, query: EncodedImage, keyframes: Sequence[EncodedImage], *, both_ways: bool = False
    ) -> list[Correspondences]:
        """Match one image with several."""


def search_view(
    matcher: Matcher, coarse: Matcher, image0: Image, image1: Image, upright: Correspondences
) -> Correspondences:
    """Match two images in the views in which they match best.

    Args:
        matcher: matches the images.
        coarse: matches the views that are tried, at a lower resolution.
        image0: (H, W, 3) uint8 RGB.
        image1: (H', W', 3) uint8 RGB.
        upright: matches of the images as they are, both ways.

    Returns:
        Matches in pixels of the images; `upright` where no view gives clearly more, or an image
        is too long to be drawn (a side over 32,000 px).
    """
    if max(*image0.shape, *image1.shape) > _MAX_SIDE_PX:
        return upright
    if upright.num_aligned >= FEW_ALIGNED:
        if _look_alike(_fit_similarity(upright, image1)):
            return upright
        found = [upright]
    else:
        found = sorted(_match_views(coarse, image0, image1), key=_num_aligned)[-_NUM_CUTS:]
    best = max((_match_alike(matcher, image0, image1, x) for x in found), key=_num_aligned)
    # Cut out by better matches, the images look more alike.
    best = max(best, _match_alike(matcher, image0, image1, best), key=_num_aligned)
    return best if best.num_aligned > _MIN_GAIN * upright.num_aligned else upright


def _match_views(matcher: Matcher, image0: Image, image1: Image) -> Iterator[Correspondences]:
    """Match turned and zoomed views, in pixels of the images."""

    @cache
    def encode0(turn_deg: float, zoom: float) -> tuple[Matrix, EncodedImage]:
        view, size = _turn(image0, turn_deg, zoom)
        return view, matcher.encode(warp(image0, view, size))

    @cache
    def encode1(zoom: float) -> tuple[Matrix, EncodedImage]:
        size = image1.shape[1::-1]
        view = _place(np.eye(2) * zoom, (np.array(size) - 1) / 2, size)
        return view, matcher.encode(warp(image1, view, size))

    for zoom0, zoom1 in _ZOOMS:
        view1, encoded1 = encode1(zoom1)
        for turn_deg in _TURNS_DEG:
            view0, encoded0 = encode0(turn_deg, zoom0)
            found = matcher.match_encoded(encoded0, [encoded1])[0]
            yield _to_images(found, view0, view1, image0, image1)


def _match_alike(
    matcher: Matcher, image0: Image, image1: Image, found: Correspondences
) -> Correspondences:
    """Cut out what both images show by these matches, drawn alike, and match that."""
    similarity = _fit_similarity(found, image1)
    if similarity is None:
        return found
    height, width = image1.shape[:2]
    seen = transform(_corners(image0), similarity)
    margin = _MARGIN * np.ptp(seen, axis=0)
    low = np.maximum(seen.min(axis=0) - margin, 0)
    high = np.minimum(seen.max(axis=0) + margin, [width - 1, height - 1])
    middle, extent = (low + high) / 2, np.maximum(high - low, _MIN_CUT_PX)
    # Details that only the first image shows stay: they say where in the second they lie.
    finer = max(1.0, 1 / np.sqrt(np.linalg.det(similarity[:2, :2])))
    zoom = min(finer, max(1.0, np.sqrt(_MAX_CUT_AREA_PX / extent.prod())))
    size = (math.ceil(extent[0] * zoom), math.ceil(extent[1] * zoom))
    view1 = _place(np.eye(2) * zoom, middle, size)
    view0 = view1 @ similarity
    encoded0, encoded1 = (
        matcher.encode(warp(image, view, size))
        for image, view in ((image0, view0), (image1, view1))
    )
    found = matcher.match_encoded(encoded0, [encoded1], both_ways=True)[0]
    return _to_images(found, view0, view1, image0, image1)


def _fit_similarity(found: Correspondences, image1: Image) -> Matrix | None:
    """Give the similarity from the first to the second image of most aligned matches."""
    aligned = found.aligned()
    if len(aligned) < _MIN_FOR_SIMILARITY:
        return None
    height, width = image1.shape[:2]
    similarity, _ = cv2.estimateAffinePartial2D(
        aligned.points0,
        aligned.points1,
        ransacReprojThreshold=_SIMILARITY_ERROR * np.hypot(width, height),
    )
    return None if similarity is None else np.vstack([similarity, [0, 0, 1]])


def _look_alike(similarity: Matrix | None) -> bool:
    """Tell whether the images are so little turned and zoomed that a cut would not help."""
    if similarity is None:
        return True
    scale = np.sqrt(np.linalg.det(similarity[:2, :2]))
    turn_deg = np.rad2deg(np.arctan2(similarity[1, 0], similarity[0, 0]))
    return max(scale, 1 / scale) < _LIKE_SCALE and abs(turn_deg) < _LIKE_TURN_DEG


def _num_aligned(found: Correspondences) -> int:
    return found.num_aligned


def _turn(image: Image, turn_deg: float, zoom: float) -> tuple[Matrix, tuple[int, int]]:
    """Give the view of an image that is turned about its middle, a square of the same area."""
    width, height = image.shape[1::-1]
    side = round(np.sqrt(width * height))
    middle = np.array([width - 1, height - 1]) / 2
    return _place(zoom * rotation_2d(turn_deg), middle, (side, side)), (side, side)


def _place(linear: Matrix, middle: NDArray[np.float64], size: tuple[int, int]) -> Matrix:
    """Give the view of this size in whose middle a point of the image lies."""
    view = np.eye(3)
    view[:2, :2] = linear
    view[:2, 2] = (np.array(size) - 1) / 2 - linear @ middle
    return view


def _to_images(
    found: Correspondences, view0: Matrix, view1: Matrix, image0: Image, image1: Image
) -> Correspondences:
    """Take matches of two views to pixels of the images; those past an image are left out."""
    points0 = transform(found.points0, np.linalg.inv(view0))
    points1 = transform(found.points1, np.linalg.inv(view1))
    is_seen = is_inside(points0, image0.shape[1::-1]) & is_inside(points1, image1.shape[1::-1])
    return replace(found, points0=points0, points1=points1).select(is_seen)


def _corners(image: Image) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    x, y = width - 1, height - 1
    return np.array([[0, 0], [x, 0], [x, y], [0, y]], np.float32)
