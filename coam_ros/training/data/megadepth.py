"""Pairs from MegaDepth as D2-Net prepares it.

ROOT/scene_info/*.npz   image_paths, depth_paths, intrinsics, poses, and overlap_matrix (D2-Net)
                        or pair_infos (LoFTR)
ROOT/<image path>       undistorted images
ROOT/<depth path>       h5 files with the key `depth`; 0 = none; the unit is that of the poses
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import importlib.util
import logging
from pathlib import Path

from coam_ros.geometry.camera import PinholeCamera
from coam_ros.geometry.transforms import invert, is_rigid
from coam_ros.mapping.importers.object_arrays import read_arrays
from coam_ros.mapping.importers.sfm_model import HALF_PIXEL
from coam_ros.matching.image_files import read_image
from coam_ros.training.data.pairs import draw_until_made, SourceConfig, TrainingPair
from coam_ros.training.data.posed_depth import DepthFrame, DepthPairMaker, DepthTolerance
from coam_ros.training.data.reading import (
    ArrayCache,
    check_image,
    largest_reduction,
    warn_of_skipped,
)
from coam_ros.training.data.views import ViewSpec
import numpy as np
from numpy.typing import NDArray

_LOGGER = logging.getLogger(__name__)
_ARRAYS = ('image_paths', 'depth_paths', 'intrinsics', 'poses', 'overlap_matrix', 'pair_infos')


@dataclass(frozen=True, kw_only=True)
class MegaDepthSourceConfig(SourceConfig):
    """MegaDepth; every scene counts the same, whatever its number of pairs.

    Attributes:
        scenes: names of `scene_info` files without `.npz`; empty takes all.
        min_overlap: least share of the first image's points that the second sees; D2-Net trains
            with 0.5 to 1, LoFTR with 0.1 to 0.7.
        max_overlap: largest share.
        relative_tolerance: share of the depth by which two depths of one surface may differ.
    """

    cache_mb: int = 512
    scenes: tuple[str, ...] = ()
    min_overlap: float = 0.1
    max_overlap: float = 1.0
    relative_tolerance: float = 0.05

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: naming the field.
        """
        super().__post_init__()
        if not 0 <= self.min_overlap <= self.max_overlap <= 1:
            raise ValueError(
                f'Overlap is {self.min_overlap} to {self.max_overlap}, wanted '
                '0 <= min_overlap <= max_overlap <= 1; correct them.'
            )


@dataclass(frozen=True, eq=False)
class _Scene:
    """What is known of a scene without opening an image.

    Attributes:
        images, depths: N paths.
        intrinsics: (N, 3, 3).
        T_world_camera: (N, 4, 4).
        pairs: (P, 2) usable pairs of images.
    """

    images: list[Path | None]
    depths: list[Path | None]
    intrinsics: NDArray[np.float64]
    T_world_camera: NDArray[np.float64]
    pairs: NDArray[np.int64]


class MegaDepthSource:
    """Pairs of MegaDepth's images."""

    def __init__(self, config: MegaDepthSourceConfig, spec: ViewSpec) -> None:
        """Read the scenes; images and depth are read when they are drawn.

        Raises:
            FileNotFoundError: no `scene_info`, or a scene asked for is missing.
            ModuleNotFoundError: h5py is not installed.
            ValueError: a scene cannot be read, or none has a pair.
        """
        if importlib.util.find_spec('h5py') is None:
            raise ModuleNotFoundError(
                'MegaDepth needs h5py, which is not installed; bring it with `pip install h5py`.'
            )
        self._root = Path(config.path)
        self._wanted_size = tuple(side / config.crop.min_extent for side in spec.size)
        tolerance = DepthTolerance(config.relative_tolerance)
        self._maker = DepthPairMaker(config, spec, tolerance, is_precise=True)
        self._cache = ArrayCache(config.cache_mb)
        self._damaged: set[Path] = set()
        skipped: dict[Path, str] = {}
        scenes = [self._read_scene(path, config, skipped) for path in self._scene_files(config)]
        warn_of_skipped(self._root, 'images', skipped, sum(len(scene.images) for scene in scenes))
        self._scenes = [scene for scene in scenes if len(scene.pairs)]
        if not self._scenes:
            raise ValueError(
                f'{self._root}: {len(scenes)} scenes have no pair of images with depth and an '
                f'overlap of {config.min_overlap} to {config.max_overlap}; check the paths in '
                'scene_info/*.npz, or widen the range.'
            )

    def sample(self, rng: np.random.Generator, item: int = 0) -> TrainingPair:
        """Return two views of a scene; see `PairSource.sample`."""
        return draw_until_made(lambda: self._draw(rng), str(self._root), 'images that overlap')

    def _draw(self, rng: np.random.Generator) -> TrainingPair | None:
        scene = self._scenes[rng.integers(len(self._scenes))]
        i, j = scene.pairs[rng.integers(len(scene.pairs))]
        frame0, frame1 = self._frame(scene, i), self._frame(scene, j)
        if frame0 is None or frame1 is None:
            return None
        return self._maker.make(frame0, frame1, rng)

    def _frame(self, scene: _Scene, index: int) -> DepthFrame | None:
        """Read a frame; None, and one warning, where a file of it is damaged."""
        path = scene.images[index]
        if path in self._damaged:
            return None
        try:
            return self._cache.get(path, lambda: self._read_frame(scene, index))
        except (KeyError, OSError, ValueError) as error:
            self._damaged.add(path)
            _LOGGER.warning(
                '%s: image %d that is not used: %s', self._root, len(self._damaged), error
            )
            return None

    def _read_frame(self, scene: _Scene, index: int) -> DepthFrame:
        path = scene.images[index]
        header = check_image(path)
        size = (header.width, header.height)
        depth = _read_depth(scene.depths[index])
        if depth.shape != size[::-1]:
            raise ValueError(f'{path} is {size[0]} x {size[1]}, its depth {depth.shape[::-1]} px')
        K = scene.intrinsics[index] - [[0, 0, HALF_PIXEL], [0, 0, HALF_PIXEL], [0, 0, 0]]
        # Only a JPEG's smaller pixels are exactly so many of the file.
        is_jpeg = header.format == 'jpeg'
        image = read_image(path, largest_reduction(size, self._wanted_size) if is_jpeg else 1)
        camera = PinholeCamera.from_K(K, *size)
        return DepthFrame(image, depth, camera, scene.T_world_camera[index])

    def _read_scene(
        self, path: Path, config: MegaDepthSourceConfig, skipped: dict[Path, str]
    ) -> _Scene:
        """Read a scene, and note in `skipped` which of its images cannot be used."""
        try:
            info = read_arrays(path, _ARRAYS)
            images, depths = (
                [name and self._root / str(name) for name in info[key].tolist()]
                for key in ('image_paths', 'depth_paths')
            )
            intrinsics, poses = (
                [None if entry is None else np.asarray(entry, np.float64) for entry in info[key]]
                for key in ('intrinsics', 'poses')
            )
            pairs = _overlapping(info, config)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(
                f'{path} cannot be read ({error}), wanted the scene_info of D2-Net with '
                'image_paths, depth_paths, intrinsics, poses and overlap_matrix; make it again.'
            ) from error
        is_usable = np.zeros(len(images), bool)
        T_world_camera = np.full((len(images), 4, 4), np.nan)
        for index in np.unique(pairs):
            problem = _find_problem(images[index], depths[index], intrinsics[index], poses[index])
            if problem:
                skipped[images[index] or path / str(index)] = problem
            else:
                is_usable[index] = True
                T_world_camera[index] = invert(poses[index])
        return _Scene(
            images, depths, intrinsics, T_world_camera, pairs[is_usable[pairs].all(axis=1)]
        )

    def _scene_files(self, config: MegaDepthSourceConfig) -> list[Path]:
        folder = self._root / 'scene_info'
        files = [folder / f'{name}.npz' for name in config.scenes] or sorted(folder.glob('*.npz'))
        missing = [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise FileNotFoundError(
                f'No {", ".join(missing) or "*.npz"} in {folder}, wanted the scenes as D2-Net '
                'prepares MegaDepth; correct the path or `scenes`.'
            )
        return files


def _find_problem(
    image: Path | None,
    depth: Path | None,
    K: NDArray[np.float64] | None,
    T_camera_world: NDArray[np.float64] | None,
) -> str | None:
    """Say why an image cannot be used; None where it can, as far as its files are not opened."""
    if image is None or depth is None:
        return 'no image or no depth'
    missing = [str(path) for path in (image, depth) if not path.is_file()]
    if missing:
        return f'no file {", ".join(missing)}'
    if K is None or K.shape != (3, 3):
        return 'no intrinsics'
    if T_camera_world is None or not is_rigid(T_camera_world):
        return 'no pose, or one that is not rigid'
    return None


def _overlapping(info: Mapping[str, NDArray], config: MegaDepthSourceConfig) -> NDArray[np.int64]:
    """List the pairs (i, j) whose overlap is in the range: (P, 2)."""
    if 'pair_infos' in info:
        rows = [(*pair, overlap) for pair, overlap, *_ in info['pair_infos']]
        table = np.array(rows, np.float64).reshape(-1, 3)
        pairs, overlap = table[:, :2].astype(np.int64), table[:, 2]
    else:
        # D2-Net marks unusable images by an overlap of -1.
        matrix = info['overlap_matrix'].astype(np.float64)
        pairs = np.argwhere((matrix >= 0) & ~np.eye(len(matrix), dtype=bool))
        overlap = matrix[tuple(pairs.T)]
    return pairs[(overlap >= config.min_overlap) & (overlap <= config.max_overlap)]


def _read_depth(path: Path) -> NDArray[np.float32]:
    # Optional: only these files need it.
    import h5py

    with h5py.File(path, 'r') as file:
        depth = file['depth'][:].astype(np.float32)
    depth[~(depth > 0)] = np.nan
    return depth
