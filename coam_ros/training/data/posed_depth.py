"""Correspondences between images with depth and pose, with an occlusion check.

One implementation for RGB-D recordings, keyframe maps, MegaDepth and rendered rooms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.image_views import (
    Image,
    is_inside,
    Matrix,
    Points,
    resize_view,
    transform,
    warp,
)
from coam_ros.geometry.transforms import invert, transform_points
from coam_ros.mapping.depth import interpolate_depth
from coam_ros.training.data.pairs import (
    IGNORED,
    MATCHED,
    PairFinisher,
    SourceConfig,
    TrainingPair,
    UNMATCHED,
)
from coam_ros.training.data.views import random_crop, ViewSpec
import numpy as np
from numpy.typing import NDArray

# A surface that lies this many tolerances before a point hides it; between one and this many,
# nothing is certain.
_HIDING_TOLERANCES = 3.0
# Matched points that the two crops must share, or this share of the points where few are drawn.
_MIN_MATCHED, _MIN_MATCHED_SHARE = 40, 0.1
# Overlap is judged on depth at this many cells of the image, from every fourth of them.
_COARSE_CELLS = (64, 48)
_COARSE_STEP = 4
_COARSE_TOLERANCE = 0.15


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """An image with depth and pose.

    Attributes:
        image: (H, W, 3) uint8 RGB, or read at a half, quarter or eighth of that size.
        depth: (H, W) float32 along the optical axis, in the unit of the pose; NaN where unknown.
        camera: intrinsics of the full size.
        T_world_camera: (4, 4) pose.
    """

    image: Image
    depth: NDArray[np.float32]
    camera: PinholeCamera
    T_world_camera: NDArray[np.float64]

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return self.image.nbytes + self.depth.nbytes

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the full image [px]."""
        return self.camera.width, self.camera.height

    def draw(self, view: Matrix, size: tuple[int, int]) -> Image:
        """Draw a view of the image, from pixels of its full size."""
        factor = 1 / round(self.camera.width / self.image.shape[1])
        return warp(self.image, view @ np.linalg.inv(resize_view(factor, factor)), size)


@dataclass(frozen=True)
class DepthTolerance:
    """How far two depths of one surface may differ.

    Attributes:
        relative: share of the depth.
        absolute: what is added to it, in the unit of the depth.
    """

    relative: float
    absolute: float = 0.0


def project(
    frame0: DepthFrame, frame1: DepthFrame, pixels0: Points, tolerance: DepthTolerance
) -> tuple[Points, NDArray[np.bool_], NDArray[np.bool_]]:
    """Carry pixels of frame 0 to frame 1.

    Args:
        frame0: where the pixels are.
        frame1: where they are looked for.
        pixels0: (N, 2).
        tolerance: larger differences of depth are occlusions.

    Returns:
        (N, 2) float32 pixels of frame 1, NaN where the depth is unknown or the point lies behind
        the camera; (N,) whether the point is seen there; (N,) whether it surely is not: outside
        the image, behind the camera or behind another surface. Neither holds where depth is
        unknown.
    """
    depth0 = interpolate_depth(frame0.depth, pixels0)
    T_1_0 = invert(frame1.T_world_camera) @ frame0.T_world_camera
    points1 = transform_points(T_1_0, frame0.camera.unproject(pixels0, depth0))
    pixels1 = frame1.camera.project(points1)
    in_image = is_inside(pixels1, frame1.size)
    # NaN compares as false: where frame 1 has no depth, a point is neither seen nor hidden.
    ahead = points1[:, 2] - interpolate_depth(frame1.depth, pixels1)
    allowed = tolerance.relative * points1[:, 2] + tolerance.absolute
    is_seen = in_image & (np.abs(ahead) < allowed)
    is_unseen = np.isfinite(depth0) & (~in_image | (ahead > _HIDING_TOLERANCES * allowed))
    return pixels1.astype(np.float32), is_seen, is_unseen


class DepthPairMaker:
    """Cuts training pairs out of two frames."""

    def __init__(
        self,
        config: SourceConfig,
        spec: ViewSpec,
        tolerance: DepthTolerance,
        *,
        is_precise: bool,
    ) -> None:
        """Take the settings of a source.

        Args:
            config: of the source.
            spec: of the views.
            tolerance: of the depth.
            is_precise: whether depth and poses are good to about a pixel.
        """
        self._crop = config.crop
        self._spec = spec
        self._tolerance = tolerance
        self._is_precise = is_precise
        self._finisher = PairFinisher(config, spec)

    def make(
        self, frame0: DepthFrame, frame1: DepthFrame, rng: np.random.Generator
    ) -> TrainingPair | None:
        """Cut a view out of each frame.

        Returns:
            None where the views share too little.
        """
        size = self._spec.size
        crop0 = random_crop(frame0.size, size, self._crop, rng)
        points0 = self._spec.draw_points(2 * self._spec.num_points, rng)
        pixels0 = transform(points0, np.linalg.inv(crop0))
        pixels1, is_seen, is_unseen = project(frame0, frame1, pixels0, self._tolerance)
        if not is_seen.any():
            return None
        centre = np.median(pixels1[is_seen], axis=0)
        crop1 = random_crop(frame1.size, size, self._crop, rng, centre)
        points1 = transform(pixels1, crop1)
        in_view = is_inside(points1, size)
        state = np.full(len(points0), IGNORED)
        state[is_unseen | (is_seen & ~in_view)] = UNMATCHED
        state[is_seen & in_view] = MATCHED
        if (state == MATCHED).sum() < min(_MIN_MATCHED, _MIN_MATCHED_SHARE * len(points0)):
            return None
        views = (frame0.draw(crop0, size), frame1.draw(crop1, size))
        return self._finisher.finish(
            views, (points0, points1), state, rng, is_precise=self._is_precise
        )


@dataclass(frozen=True, eq=False)
class CoarseDepth:
    """What overlap is judged by: a few depths of a frame and where it was taken.

    Attributes:
        depth: (48, 64) float32 at the centres of as many cells of the image, NaN where unknown.
        K_cells: (3, 3) intrinsics in cells; distortion does not count here.
        T_world_camera: (4, 4) pose.
    """

    depth: NDArray[np.float32]
    K_cells: NDArray[np.float64]
    T_world_camera: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        depth: NDArray[np.float32],
        camera: PinholeCamera,
        T_world_camera: NDArray[np.float64],
    ) -> CoarseDepth:
        """Pick the depths out of (H, W) float32 depth."""
        columns, rows = (
            ((np.arange(cells) + 0.5) * side / cells).astype(int)
            for cells, side in zip(_COARSE_CELLS, depth.shape[::-1], strict=True)
        )
        scale = np.array(_COARSE_CELLS) / (camera.width, camera.height)
        K_cells = resize_view(*scale) @ camera.K
        return cls(depth[np.ix_(rows, columns)], K_cells, T_world_camera)


def overlaps(one: CoarseDepth, others: Sequence[CoarseDepth]) -> NDArray[np.float64]:
    """Estimate which share of a frame is seen in each of others.

    Args:
        one: the frame.
        others: N frames.

    Returns:
        (N,) shares of the cells with depth in [0, 1]; 0 where the frame has no depth.
    """
    columns, rows = np.meshgrid(*(np.arange(0, cells, _COARSE_STEP) for cells in _COARSE_CELLS))
    depth = one.depth[rows, columns].ravel()
    known = np.isfinite(depth)
    if not known.any() or not others:
        return np.zeros(len(others))
    pixels = np.stack([columns.ravel(), rows.ravel(), np.ones(depth.size)])[:, known]
    points_world = transform_points(
        one.T_world_camera, (np.linalg.inv(one.K_cells) @ pixels * depth[known]).T
    )
    T_camera_world = np.stack([invert(other.T_world_camera) for other in others])
    points = points_world @ T_camera_world[:, :3, :3].transpose(0, 2, 1)
    points += T_camera_world[:, None, :3, 3]
    z = points[..., 2]
    cells = points @ np.stack([other.K_cells for other in others]).transpose(0, 2, 1)
    cells = np.rint(cells[..., :2] / np.where(z > 0, z, np.inf)[..., None])
    in_image = (z > 0) & ((cells >= 0) & (cells < _COARSE_CELLS)).all(axis=-1)
    column, row = np.where(in_image[..., None], cells, 0).astype(int).transpose(2, 0, 1)
    depths = np.stack([other.depth for other in others])
    there = depths[np.arange(len(others))[:, None], row, column]
    return (in_image & (np.abs(there - z) < _COARSE_TOLERANCE * z)).mean(axis=1)


def overlapping_pairs(
    frames: Sequence[CoarseDepth],
    candidates: Iterable[Sequence[int]],
    min_overlap: float,
) -> list[tuple[int, int]]:
    """List pairs of frames (i, j) of which j shows enough of i.

    Args:
        frames: N frames.
        candidates: for each frame, the indices of those to compare it with.
        min_overlap: share of frame i that frame j must show.
    """
    pairs = []
    for i, others in enumerate(candidates):
        shares = overlaps(frames[i], [frames[j] for j in others])
        pairs += [
            (i, int(j)) for j, share in zip(others, shares, strict=True) if share > min_overlap
        ]
    return pairs
