"""Training pairs: two images with known correspondences, from photos, RGB-D frames and tracks.

Every source answers `sample(rng)` with a `TrainingPair`; the mixture of sources is an endless,
seeded data set. Nothing here touches the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import logging
from pathlib import Path
from typing import Protocol

from coam_ros.training.photometric import vary_photometry
import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torch.utils.data import Dataset

_LOGGER = logging.getLogger(__name__)
NUM_POINTS = 320
MATCHED, UNMATCHED, IGNORED = 1, 0, -1
# RGB-D pairs: share of the first view seen in the second, least distance in the sequence
# (neighbours are too alike to teach), matched points that a crop must keep.
_MIN_OVERLAP = 0.25
_MIN_STEP = 3
_MIN_MATCHED = 40
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingPair:
    """Two views and what is known about points of the first.

    Attributes:
        image0, image1: (H, W, 3) uint8 RGB.
        points0, points1: (NUM_POINTS, 2) float32 pixels; `points1` counts only where matched.
        state: (NUM_POINTS,) int64: MATCHED, UNMATCHED (not in image 1) or IGNORED (padding).
        is_precise: whether the correspondences hold to about a pixel.
    """

    image0: NDArray[np.uint8]
    image1: NDArray[np.uint8]
    points0: Array
    points1: Array
    state: NDArray[np.int64]
    is_precise: bool


class PairSource(Protocol):
    """An endless supply of training pairs."""

    def sample(self, rng: np.random.Generator) -> TrainingPair:
        """Return one pair; all randomness comes from `rng`."""


class PhotoSource:
    """Two random homographies of one photo; now and then of two photos that share nothing."""

    def __init__(
        self, directory: Path, size: tuple[int, int], unrelated_share: float = 0.04
    ) -> None:
        """List the photos of a folder.

        Args:
            directory: folder of images.
            size: (width, height) of the training views [px].
            unrelated_share: share of pairs made of two different photos.

        Raises:
            FileNotFoundError: no image in the folder.
        """
        self._paths = sorted(p for p in directory.glob('*') if p.suffix in {'.jpg', '.png'})
        if not self._paths:
            raise FileNotFoundError(
                f'No training photos: {directory} holds no .jpg or .png file; wanted a folder '
                'of photos, give it with --data.'
            )
        self._size = size
        self._unrelated_share = unrelated_share

    def sample(self, rng: np.random.Generator) -> TrainingPair:
        """Return two views of a photo."""
        photo = self._load(rng)
        base = _random_view(photo.shape, self._size, rng)
        image0 = _warp(photo, base, self._size)
        if rng.random() < self._unrelated_share:
            other = self._load(rng)
            image1 = _warp(other, _random_view(other.shape, self._size, rng), self._size)
            points0 = _random_cells(self._size, NUM_POINTS, rng)
            state = np.full(NUM_POINTS, UNMATCHED)
            return _finish(image0, image1, points0, points0, state, rng, is_precise=True)
        change = _random_homography(self._size, rng)
        image1 = _warp(photo, change @ base, self._size)
        points0 = _random_cells(self._size, NUM_POINTS, rng)
        points1 = cv2.perspectiveTransform(points0[:, None], change)[:, 0]
        # A view may reach past the photo's border: what lies there is only black.
        in_photo = _inside(
            cv2.perspectiveTransform(points0[:, None], np.linalg.inv(base))[:, 0],
            (photo.shape[1], photo.shape[0]),
        )
        visible = _inside(points1, self._size)
        state = np.where(in_photo, np.where(visible, MATCHED, UNMATCHED), IGNORED)
        return _finish(image0, image1, points0, points1, state, rng, is_precise=True)

    def _load(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        return read_rgb(self._paths[rng.integers(len(self._paths))])


class RgbdSource:
    """Pairs of frames of one posed RGB-D sequence in the 7-Scenes layout."""

    def __init__(
        self, directory: Path, size: tuple[int, int], max_step: int, *, is_precise: bool
    ) -> None:
        """Load a sequence into memory.

        Args:
            directory: `frame-N.color.jpg`, `.depth.png` (mm), `.pose.txt` (T_world_camera) and
                `intrinsics.txt`.
            size: (width, height) of the training views [px].
            max_step: largest distance of the two frames in the sequence [frames].
            is_precise: whether poses and depth are good to about a pixel.
        """
        self._size = size
        self._max_step = max_step
        self._is_precise = is_precise
        self._K = _read_intrinsics(directory / 'intrinsics.txt')
        stems = sorted(p.name.removesuffix('.pose.txt') for p in directory.glob('*.pose.txt'))
        self._images = [read_rgb(directory / f'{stem}.color.jpg') for stem in stems]
        self._depths_m = [_read_depth_m(directory / f'{stem}.depth.png') for stem in stems]
        self._T_world_camera = [np.loadtxt(directory / f'{stem}.pose.txt') for stem in stems]
        self._pairs = self._overlapping(max_step)
        if not self._pairs:
            raise ValueError(
                f'No overlapping frames: of {directory} no two frames up to {max_step} apart '
                f'share {_MIN_OVERLAP:.0%} of their view; check poses and depth.'
            )
        _LOGGER.info('%s: %d pairs of %d frames', directory.name, len(self._pairs), len(stems))

    def sample(self, rng: np.random.Generator) -> TrainingPair:
        """Return two views of the scene."""
        while True:
            pair = self._try_sample(rng)
            if pair is not None:
                return pair

    def _overlapping(self, max_step: int) -> list[tuple[int, int]]:
        height, width = self._depths_m[0].shape
        grid = np.stack(np.meshgrid(np.arange(20, width, 40), np.arange(20, height, 40)), axis=-1)
        grid = grid.reshape(-1, 2).astype(np.float32)
        count = len(self._images)
        with_depth = [int((_lookup_depth(depth, grid) > 0).sum()) for depth in self._depths_m]
        return [
            (i, j)
            for i in range(count)
            for j in range(max(0, i - max_step), min(count, i + max_step + 1))
            if abs(j - i) >= _MIN_STEP
            and self._project(i, j, grid)[2].sum() > _MIN_OVERLAP * with_depth[i]
        ]

    def _try_sample(self, rng: np.random.Generator) -> TrainingPair | None:
        i, j = self._pairs[rng.integers(len(self._pairs))]
        crop0 = _random_crop(self._images[i].shape, self._size, None, rng)
        cells = _random_cells(self._size, 2 * NUM_POINTS, rng)
        pixels0 = _transform(cells, np.linalg.inv(crop0))
        pixels1, known, visible = self._project(i, j, pixels0)
        if not visible.any():
            return None
        crop1 = _random_crop(
            self._images[j].shape, self._size, np.median(pixels1[visible], axis=0), rng
        )
        points1 = _transform(pixels1, crop1)
        inside = _inside(points1, self._size)
        state = np.full(len(cells), IGNORED)
        state[known & ~inside] = UNMATCHED
        state[visible & inside] = MATCHED
        if (state == MATCHED).sum() < _MIN_MATCHED:
            return None
        image0 = _warp(self._images[i], crop0, self._size)
        image1 = _warp(self._images[j], crop1, self._size)
        return _finish(image0, image1, cells, points1, state, rng, is_precise=self._is_precise)

    def _project(
        self, i: int, j: int, pixels0: Array
    ) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """Carry pixels of frame i to frame j: pixels, depth known, seen there."""
        depth0 = _lookup_depth(self._depths_m[i], pixels0)
        known = depth0 > 0
        rays = np.linalg.inv(self._K) @ np.c_[pixels0, np.ones(len(pixels0))].T
        T_j_i = np.linalg.inv(self._T_world_camera[j]) @ self._T_world_camera[i]
        points_j = T_j_i[:3, :3] @ (rays * depth0) + T_j_i[:3, 3:]
        in_front = points_j[2] > 0.1
        projected = self._K @ points_j
        pixels1 = (projected[:2] / np.where(in_front, projected[2], 1.0)).T.astype(np.float32)
        known &= in_front
        height, width = self._depths_m[j].shape
        inside = known & _inside(pixels1, (width, height))
        depth1 = _lookup_depth(self._depths_m[j], pixels1)
        # 3 % + 2 cm: twice the depth noise of the Kinect at 3 m; beyond is an occlusion.
        agrees = np.abs(depth1 - points_j[2]) < 0.03 * points_j[2] + 0.02
        return pixels1, known & (~inside | agrees), inside & agrees


class TrackSource:
    """Pairs of photos with structure-from-motion tracks in common."""

    def __init__(self, directory: Path, size: tuple[int, int], min_tracks: int = 40) -> None:
        """Load pairs, tracks and images of a scene into memory.

        Args:
            directory: images, `pairs.txt` and `points/IMAGE.npz` with `xy` and `id`.
            size: (width, height) of the training views [px].
            min_tracks: pairs with fewer common tracks are left out.
        """
        self._size = size
        names = [line.split()[:2] for line in (directory / 'pairs.txt').read_text().splitlines()]
        tracks = {p.stem: np.load(p) for p in (directory / 'points').glob('*.npz')}
        tracks = {name: (t['xy'].astype(np.float32), t['id']) for name, t in tracks.items()}
        self._pairs = []
        for pair in names:
            stems = [name if name in tracks else Path(name).stem for name in pair]
            if not all(stem in tracks for stem in stems):
                continue
            (xy0, id0), (xy1, id1) = (tracks[stem] for stem in stems)
            _, index0, index1 = np.intersect1d(id0, id1, return_indices=True)
            if len(index0) >= min_tracks:
                self._pairs.append((*pair, xy0[index0], xy1[index1]))
        used = {name for pair in self._pairs for name in pair[:2]}
        self._images = {name: read_rgb(directory / name) for name in used}
        _LOGGER.info('%s: %d of %d pairs', directory.name, len(self._pairs), len(names))

    def sample(self, rng: np.random.Generator) -> TrainingPair:
        """Return two crops that hold common tracks."""
        while True:
            name0, name1, xy0, xy1 = self._pairs[rng.integers(len(self._pairs))]
            if rng.random() < 0.5:
                name0, name1, xy0, xy1 = name1, name0, xy1, xy0
            centre = rng.integers(len(xy0))
            crop0 = _random_crop(self._images[name0].shape, self._size, xy0[centre], rng)
            crop1 = _random_crop(self._images[name1].shape, self._size, xy1[centre], rng)
            points0, points1 = _transform(xy0, crop0), _transform(xy1, crop1)
            keep = _inside(points0, self._size) & _inside(points1, self._size)
            if keep.sum() >= 20:
                break
        image0 = _warp(self._images[name0], crop0, self._size)
        image1 = _warp(self._images[name1], crop1, self._size)
        state = np.full(int(keep.sum()), MATCHED)
        return _finish(image0, image1, points0[keep], points1[keep], state, rng, is_precise=True)


class PairMixture(Dataset):
    """Endless seeded mixture of sources: item i is the same in every run and after a resume."""

    def __init__(
        self, sources: Sequence[PairSource], weights: Sequence[float], num_items: int, seed: int
    ) -> None:
        """Mix sources by weight; `num_items` bounds the index."""
        self._sources = list(sources)
        self._weights = np.asarray(weights) / np.sum(weights)
        self._num_items = num_items
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of items that an epoch would have."""
        return self._num_items

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return pair `index` as tensors."""
        rng = np.random.default_rng((self._seed, index))
        pair = self._sources[rng.choice(len(self._sources), p=self._weights)].sample(rng)
        return {
            'image0': torch.from_numpy(pair.image0).permute(2, 0, 1),
            'image1': torch.from_numpy(pair.image1).permute(2, 0, 1),
            'points0': torch.from_numpy(pair.points0),
            'points1': torch.from_numpy(pair.points1),
            'state': torch.from_numpy(pair.state),
            'is_precise': torch.tensor(pair.is_precise),
        }


def _finish(
    image0: NDArray[np.uint8],
    image1: NDArray[np.uint8],
    points0: Array,
    points1: Array,
    state: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    is_precise: bool,
) -> TrainingPair:
    """Vary the photometry, bring the points to NUM_POINTS."""
    order = rng.permutation(len(state))
    # Ignored points last, so that cutting to NUM_POINTS keeps what teaches.
    order = order[np.argsort(state[order] == IGNORED, kind='stable')][:NUM_POINTS]
    points0, points1, state = points0[order], points1[order], state[order]
    missing = NUM_POINTS - len(state)
    return TrainingPair(
        vary_photometry(image0, rng),
        vary_photometry(image1, rng),
        np.pad(points0, ((0, missing), (0, 0))).astype(np.float32),
        np.pad(np.where((state == MATCHED)[:, None], points1, 0), ((0, missing), (0, 0))).astype(
            np.float32
        ),
        np.pad(state, (0, missing), constant_values=IGNORED).astype(np.int64),
        is_precise,
    )


def _random_view(
    shape: tuple[int, ...], size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Homography from a photo to a view of `size` that holds most of it or a part."""
    return _random_crop(shape, size, None, rng)


def _random_crop(
    shape: tuple[int, ...],
    size: tuple[int, int],
    centre: Array | None,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Similarity (3, 3) from image pixels to a view that shows 45-100 % of the image's extent."""
    height, width = shape[:2]
    fit = max(size[0] / width, size[1] / height)
    scale = fit / rng.uniform(0.45, 1.0)
    extent = np.array(size) / scale
    if centre is None:
        centre = rng.uniform(0, 1, 2) * (np.array([width, height]) - extent) + extent / 2
    else:
        centre = centre + rng.uniform(-0.25, 0.25, 2) * extent
        limit = np.maximum(np.array([width, height]) - extent / 2, extent / 2)
        centre = np.clip(centre, extent / 2, limit)
    angle = np.deg2rad(rng.normal(0, 6))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    crop = np.eye(3)
    crop[:2, :2] = scale * rotation
    crop[:2, 2] = np.array(size) / 2 - crop[:2, :2] @ centre
    return crop


def _random_homography(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Viewpoint change of a plane that fills the view: perspective, rotation, scale, shift."""
    width, height = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    tilt = rng.uniform(-0.22, 0.22, (4, 2)) * [width, height] * rng.random()
    # One in eight turns freely: a robot's camera is mostly upright, hand-held ones are not.
    angle = rng.uniform(-180, 180) if rng.random() < 0.125 else rng.normal(0, 18)
    scale = np.exp(rng.uniform(np.log(0.55), np.log(1.8)))
    angle = np.deg2rad(angle)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([width, height]) / 2
    shift = rng.uniform(-0.25, 0.25, 2) * [width, height]
    target = (corners + tilt - centre) @ rotation.T + centre + shift
    return cv2.getPerspectiveTransform(corners.astype(np.float32), target.astype(np.float32))


def _warp(
    image: NDArray[np.uint8], view: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Warp by a homography; a shrinking one is blurred first so that nothing aliases."""
    scale = np.sqrt(abs(np.linalg.det(view[:2, :2] / view[2, 2])))
    if scale < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), 0.45 / scale)
    return cv2.warpPerspective(image, view, size, flags=cv2.INTER_LINEAR)


def _random_cells(size: tuple[int, int], count: int, rng: np.random.Generator) -> Array:
    """Centres of random stride-4 cells: the points that the deployed matcher selects."""
    cells = np.stack([rng.integers(0, s // 4, count) for s in size], axis=1)
    return ((cells + 0.5) * 4 - 0.5).astype(np.float32)


def _transform(points: Array, matrix: NDArray[np.float64]) -> Array:
    return cv2.perspectiveTransform(points[:, None].astype(np.float64), matrix)[:, 0].astype(
        np.float32
    )


def _inside(points: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    return ((points >= 0) & (points <= np.array(size) - 1)).all(axis=1)


def _lookup_depth(depth_m: Array, pixels: Array) -> Array:
    """Depth at the nearest pixel; 0 where outside, unknown or at an edge of the depth."""
    height, width = depth_m.shape
    # Clip before rounding: points far outside would overflow an integer.
    clipped = np.clip(np.nan_to_num(pixels), 0, [width - 1, height - 1])
    column, row = np.rint(clipped).astype(int).T
    depth = depth_m[row, column]
    neighbour = depth_m[np.minimum(row + 1, height - 1), np.minimum(column + 1, width - 1)]
    is_edge = np.abs(neighbour - depth) > 0.05 * depth
    return np.where(is_edge | ~_inside(pixels, (width, height)), 0, depth)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB; ValueError where it cannot be decoded."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f'Unreadable image: {path} could not be decoded; replace or remove it.')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _read_depth_m(path: Path) -> Array:
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None:
        raise ValueError(f'Unreadable depth: {path} could not be decoded; replace or remove it.')
    return np.where(depth == 65535, 0, depth).astype(np.float32) / 1000


def _read_intrinsics(path: Path) -> NDArray[np.float64]:
    values = np.loadtxt(path).ravel()
    if values.size == 4:
        fx, fy, cx, cy = values
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    return values[:9].reshape(3, 3)
