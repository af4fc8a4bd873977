"""Sub-pixel alignment of matches: the images themselves say where exactly a match lies.

The network finds a match to about a pixel. From matches that agree with their neighbours follows
how the query looks from the keyframe; there, optical flow finds what is left between the two, to
a fraction of a pixel, and a match that does not agree with its neighbours shows. What it is worth
is measured in docs/experiments.md.

Shape legend: N matches, H and W of an image, h and w of its blocks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from coam_ros.geometry.image_views import is_inside
from coam_ros.inference.manifest import BLOCK_PX
from coam_ros.matching.correspondences import Correspondences
import cv2
import numpy as np
from numpy.typing import NDArray

# Aligned matches of two images that are enough for any estimator, and below which it is doubtful
# that the images match at all: those of different places give some 35, a few of them up to 120
# (docs/experiments.md).
ENOUGH_ALIGNED = 150
# What alignment adds to the log-odds that a match is right: that of the match itself, and that of
# all matches of the two images, times the log-odds of their share. Images that show nothing in
# common align a tenth of what the network gives them. Fitted on 123 pairs of images of one place
# (photos under homographies, rendered rooms) and 148 of two places (docs/experiments.md).
_PRIOR_EVIDENCE, _ALIGNED_EVIDENCE, _SHARE_EVIDENCE = -3.9, 3.6, 1.2
# The share of a few matches says little: as if these many more had aligned, and been found.
_SHARE_PRIOR = (1, 10)
# Neighbours that a match must agree with: weights fall off by this deviation [blocks].
_NEIGHBOURHOOD_BLOCKS = 2.0
# Fits of the neighbourhood; from the second on, a match counts by how well it fitted the last.
# Where four of ten matches are wrong, 3 fits align 74 % of the right ones, 6 fits 91 %.
_NUM_FITS = 6
# A match that lies farther than this from where its neighbours put it is wrong [px].
_MAX_DISAGREEMENT_PX = 8.0
# Where neighbours are few, the fit is held to a shift of all: variance of their places [blocks^2]
# below which their slopes do not count, and what a weight of one adds.
_SLOPE_VARIANCE, _SLOPE_VARIANCE_PER_WEIGHT = 0.3, 0.02
# Local contrast becomes the same everywhere, so that light and exposure do not matter to the flow.
_CONTRAST_WINDOW_PX = 33
_CONTRAST, _MIDDLE_GREY, _NOISE = 40.0, 128.0, 4.0
# Optical flow: side of the patch [px], levels above the finest, iterations and least step [px].
_PATCH_PX = 15
_NUM_LEVELS = 1
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 8, 0.02)
# Flow that moves a match farther than this has lost it [px].
_MAX_FLOW_PX = 6.0
# Patch that must have structure in two directions, for the choice of the point of a block [px].
_CORNER_PX = 5
# The other map of cv2.remap, where one holds x and y; OpenCV's stubs do not know it.
_NO_MAP: Any = None


class AlignedPoints(NamedTuple):
    """Matches after alignment.

    Attributes:
        query_points: (N, 2) float32 pixels of the query.
        keyframe_points: (N, 2) float32 pixels of the keyframe: the corner-like point of the block.
        is_aligned: (N,) bool; false where a match disagrees with its neighbours or the flow lost
            it: its points are as they were.
    """

    query_points: NDArray[np.float32]
    keyframe_points: NDArray[np.float32]
    is_aligned: NDArray[np.bool_]


def align_matches(
    query: NDArray[np.uint8],
    keyframe: NDArray[np.uint8],
    found: Correspondences,
    *,
    both_ways: bool,
) -> Correspondences:
    """Align matches, say so in their scores, and leave out what is not needed.

    Args:
        query: (H, W) uint8 grey, image 0 of the matches.
        keyframe: (H', W') likewise, image 1.
        found: matches, at most one in a block of the keyframe.
        both_ways: whether the corner-like points of the query are sought in the keyframe too:
            about twice as many matches, each of them as exact.

    Returns:
        The aligned ones, where they are enough for any estimator; else the others too: they are
        mostly wrong or coarse, but better than nothing.
    """
    points0, points1, is_aligned = align(
        query, keyframe, found.points0, found.points1, found.scores
    )
    share = (is_aligned.sum() + _SHARE_PRIOR[0]) / (len(is_aligned) + _SHARE_PRIOR[1])
    kept = _with_evidence(found, points0, points1, is_aligned, share)
    is_enough = is_aligned.sum() >= ENOUGH_ALIGNED
    if both_ways:
        back = found.select(_best_of_blocks(found.points0, found.scores))
        points1, points0, is_aligned = align(
            keyframe, query, back.points1, back.points0, back.scores
        )
        back = _with_evidence(back, points0, points1, is_aligned, share)
        kept = kept.followed_by(back.aligned())
    return kept.aligned() if is_enough else kept


def align(
    query: NDArray[np.uint8],
    keyframe: NDArray[np.uint8],
    query_points: NDArray[np.float32],
    keyframe_points: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> AlignedPoints:
    """Align matches to a fraction of a pixel.

    Args:
        query: (H, W) uint8 grey.
        keyframe: (H', W') likewise.
        query_points: (N, 2) pixels of the query.
        keyframe_points: (N, 2) pixels of the keyframe, at most one in a block.
        weights: (N,) how likely each match is right.
    """
    if not len(weights):
        return AlignedPoints(query_points, keyframe_points, np.zeros(0, bool))
    height, width = keyframe.shape
    columns, rows = ((keyframe_points + 0.5) // BLOCK_PX).astype(int).T
    shape = (-(-height // BLOCK_PX), -(-width // BLOCK_PX))
    displacement = np.zeros((*shape, 2), np.float32)
    displacement[rows, columns] = query_points - keyframe_points
    weight = np.zeros(shape, np.float32)
    weight[rows, columns] = weights
    smooth, disagreement = _fit_neighbourhoods(displacement, weight)

    # The query as the keyframe sees it.
    view = _pixel_grid(height, width) + _enlarge(smooth, height, width)
    seen = cv2.remap(query, view, _NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    keyframe = _equalize_contrast(keyframe)
    seen = _equalize_contrast(np.asarray(seen, np.uint8))
    corners = _corner_points(keyframe, rows, columns)
    moved, is_found, _ = cv2.calcOpticalFlowPyrLK(
        keyframe,
        seen,
        corners,
        corners.copy(),
        winSize=(_PATCH_PX, _PATCH_PX),
        maxLevel=_NUM_LEVELS,
        criteria=_CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    # Where the view shows the moved point is where the query has it.
    in_query = cv2.remap(
        view, moved[:, None], _NO_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[:, 0]
    is_aligned = (
        (disagreement[rows, columns] < _MAX_DISAGREEMENT_PX)
        & (is_found[:, 0] > 0)
        & (np.linalg.norm(moved - corners, axis=1) < _MAX_FLOW_PX)
        & is_inside(moved, (width, height))
        & is_inside(in_query, query.shape[::-1])
    )
    return AlignedPoints(
        np.where(is_aligned[:, None], in_query, query_points),
        np.where(is_aligned[:, None], corners, keyframe_points),
        is_aligned,
    )


def weigh_evidence(
    scores: NDArray[np.float32], is_aligned: NDArray[np.bool_], share: float
) -> NDArray[np.float32]:
    """Give the probabilities (N,) that matches are right, now that it is known which aligned.

    Args:
        scores: (N,) probabilities before.
        is_aligned: (N,).
        share: of the matches of the two images that aligned, above 0 and below 1.
    """
    evidence = _PRIOR_EVIDENCE + _ALIGNED_EVIDENCE * is_aligned
    evidence += _SHARE_EVIDENCE * np.log(share / (1 - share))
    odds = np.exp(evidence) * scores
    return (odds / (odds + 1 - scores)).astype(np.float32)


def _with_evidence(
    found: Correspondences,
    points0: NDArray[np.float32],
    points1: NDArray[np.float32],
    is_aligned: NDArray[np.bool_],
    share: float,
) -> Correspondences:
    """Put matches where alignment has them."""
    scores = weigh_evidence(found.scores, is_aligned, share)
    return replace(found, points0=points0, points1=points1, scores=scores, is_aligned=is_aligned)


def _best_of_blocks(points: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.int_]:
    """Give the indices of the best match in each block of an image."""
    order = np.argsort(-scores, kind='stable')
    _, first = np.unique((points[order] + 0.5) // BLOCK_PX, axis=0, return_index=True)
    return order[first]


def _fit_neighbourhoods(
    displacement: NDArray[np.float32], weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fit an affine displacement around each block, robustly.

    Args:
        displacement: (h, w, 2) from keyframe to query [px].
        weight: (h, w), 0 where a block has no match.

    Returns:
        (h, w, 2) fitted displacement, and (h, w) distance of the block's own from it [px].
    """
    height, width = weight.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    u, v = displacement[..., 0], displacement[..., 1]
    products = np.dstack(
        [np.ones_like(x), x, y, u, v, x * x, x * y, y * y, x * u, y * u, x * v, y * v]
    )
    current = weight
    for _ in range(_NUM_FITS):
        # Weighted means in each block's neighbourhood, of which all else follows.
        means = cv2.GaussianBlur(
            products * current[..., None],
            (0, 0),
            _NEIGHBOURHOOD_BLOCKS,
            borderType=cv2.BORDER_CONSTANT,
        )
        total = np.maximum(means[..., 0], 1e-6)
        mx, my, mu, mv, mxx, mxy, myy, mxu, myu, mxv, myv = (
            means[..., i] / total for i in range(1, products.shape[-1])
        )
        hold = _SLOPE_VARIANCE + _SLOPE_VARIANCE_PER_WEIGHT / total
        vxx, vxy, vyy = mxx - mx * mx + hold, mxy - mx * my, myy - my * my + hold
        determinant = vxx * vyy - vxy * vxy
        fitted = []
        for mean, with_x, with_y in ((mu, mxu, myu), (mv, mxv, myv)):
            cx, cy = with_x - mx * mean, with_y - my * mean
            slope_x = (vyy * cx - vxy * cy) / determinant
            slope_y = (vxx * cy - vxy * cx) / determinant
            fitted.append(mean + slope_x * (x - mx) + slope_y * (y - my))
        smooth = np.dstack(fitted)
        disagreement = np.linalg.norm(smooth - displacement, axis=2)
        current = weight / (1 + (disagreement / _MAX_DISAGREEMENT_PX) ** 2) ** 2
    return smooth.astype(np.float32, copy=False), disagreement.astype(np.float32, copy=False)


def _enlarge(blocks: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Interpolate values of block centres (h, w, C) at all pixels."""
    size = (blocks.shape[1] * BLOCK_PX, blocks.shape[0] * BLOCK_PX)
    enlarged = cv2.resize(blocks, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged[:height, :width], np.float32)


def _pixel_grid(height: int, width: int) -> NDArray[np.float32]:
    """Give the coordinates of all pixels, (H, W, 2)."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack([x, y])


def _equalize_contrast(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make mean and deviation of (H, W) brightness the same around every pixel."""
    grey = image.astype(np.float32)
    window = (_CONTRAST_WINDOW_PX, _CONTRAST_WINDOW_PX)
    difference = grey - cv2.blur(grey, window)
    # Its running sums leave a little less than nothing where all is one grey.
    variance = np.maximum(cv2.blur(difference * difference, window), 0.0)
    equal = _MIDDLE_GREY + difference * (_CONTRAST / (np.sqrt(variance) + _NOISE))
    return np.clip(np.rint(equal), 0, 255).astype(np.uint8)


def _corner_points(
    image: NDArray[np.uint8], rows: NDArray[np.int_], columns: NDArray[np.int_]
) -> NDArray[np.float32]:
    """Give the pixel of each block around which the image is most corner-like: (N, 2).

    The least eigenvalue of the structure tensor says so (Shi and Tomasi, CVPR 1994): the least
    certainty of flow in any direction.
    """
    strength = cv2.cornerMinEigenVal(cv2.GaussianBlur(image, (0, 0), 1.0), _CORNER_PX)
    height, width = image.shape
    offset = np.arange(BLOCK_PX)
    y = np.minimum(rows[:, None] * BLOCK_PX + offset, height - 1)
    x = np.minimum(columns[:, None] * BLOCK_PX + offset, width - 1)
    blocks = strength[y[:, :, None], x[:, None, :]].reshape(len(rows), -1)
    best_row, best_column = np.divmod(blocks.argmax(axis=1), BLOCK_PX)
    picked = np.arange(len(rows))
    return np.stack([x[picked, best_column], y[picked, best_row]], axis=1).astype(np.float32)
